//! A checkpoint's values in a plugin's model: the plugin says where each tensor goes, this moves them and
//! refuses whatever does not fit exactly.

use std::collections::BTreeMap;
use std::path::Path;

use longhaul_plugin_api::checkpoint::{CheckpointPlan, IGNORED, TensorPlace};
use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedPlugin};
use longhaul_plugin_api::data::Device;

use crate::architecture::{ArchSpec, ModelSize};
use crate::catalogue::{Catalogue, describe_here};
use crate::checkpoint::files::{FileError, Folder, Tensors};
use crate::find::did_you_mean;

/// Why a checkpoint did not become a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The plugin.
    #[error(transparent)]
    Plugin(#[from] ClientError),
    /// Anything else, in words.
    #[error("{0}")]
    Words(String),
}

/// Result of loading.
pub type Result<T> = std::result::Result<T, LoadError>;

/// A checkpoint as a plugin understands it, before a model is built.
pub struct Understood {
    /// The plugin.
    pub plugin: LoadedPlugin,
    /// What the plugin says.
    pub plan: CheckpointPlan,
    /// The architecture with its checked options.
    pub spec: ArchSpec,
}

impl Understood {
    /// Asks a library what a checkpoint is.
    ///
    /// # Errors
    /// A library that cannot be opened or does not know; a config or options it refuses.
    pub fn ask(folder: &Folder, library: &Path) -> Result<Self> {
        let words = |error: &dyn std::fmt::Display| LoadError::Words(error.to_string());
        let described = describe_here(library).map_err(|error| words(&error))?;
        let plugin = LoadedPlugin::open(library, crate::logging::plugin_log)?;
        let plan = plugin
            .checkpoint(&folder.model_type, &folder.config)
            .ok_or_else(|| {
                LoadError::Words(format!(
                    "{} is older than checkpoints; build it anew",
                    library.display()
                ))
            })??;
        let options: Vec<String> = plan
            .options
            .iter()
            .map(|option| format!("{}={}", option.0, option.1))
            .collect();
        let text = format!("{}:{}", plan.architecture, options.join(","));
        let catalogue = Catalogue {
            plugins: vec![described],
        };
        let mut spec = ArchSpec::parse(&text, &catalogue).map_err(|error| words(&error))?;
        (spec.d_model, spec.layers) = (Some(plan.d_model), Some(plan.layers));
        Ok(Self { plugin, plan, spec })
    }

    /// Sizes of the model.
    pub fn size(&self) -> ModelSize {
        ModelSize {
            vocab: self.plan.vocab,
            d_model: self.plan.d_model,
            layers: self.plan.layers,
            max_train_length: self.plan.max_length.max(1),
        }
    }

    /// Builds the model and puts the checkpoint's values into it.
    ///
    /// # Errors
    /// A tensor that is unknown, missing or of another shape; a plan that does not fill the model.
    pub fn build(&self, folder: &Folder, device: Device) -> Result<LoadedModel> {
        check_tensors(&self.plan, folder)?;
        let mut model = self
            .plugin
            .build(&self.spec.config(self.size(), 0, device))?;
        fill(&mut model, &self.plan, &folder.tensors)?;
        Ok(model)
    }
}

/// Every tensor has a place, every place a tensor of its shape.
fn check_tensors(plan: &CheckpointPlan, folder: &Folder) -> Result<()> {
    let path = folder.path.display();
    for place in &plan.tensors {
        let expected: Vec<usize> = place.shape.iter().map(|&size| size as usize).collect();
        match folder.tensors.get(&place.tensor) {
            None => {
                let known = folder.tensors.iter().map(|(name, _)| name);
                return Err(LoadError::Words(format!(
                    "{path} has no tensor `{}`{}; a {} of this config needs it, of shape {expected:?}",
                    place.tensor,
                    did_you_mean(&place.tensor, known),
                    folder.model_type,
                )));
            }
            Some(found) if found.shape != expected => {
                return Err(LoadError::Words(format!(
                    "tensor `{}` in {path} is of shape {:?}; the config asks for {expected:?}",
                    place.tensor, found.shape
                )));
            }
            Some(_) => {}
        }
    }
    let ignored: Vec<&str> = plan
        .extra
        .iter()
        .filter(|pair| pair.0 == IGNORED)
        .map(|pair| pair.1.as_str())
        .collect();
    for (name, found) in folder.tensors.iter() {
        let placed = plan.tensors.iter().any(|place| place.tensor == name);
        if !placed && !ignored.iter().any(|end| name.ends_with(end)) {
            return Err(LoadError::Words(format!(
                "{path} has a tensor `{name}` of shape {:?} that a {} of this config has not; is \
                 config.json of another model?",
                found.shape, folder.model_type
            )));
        }
    }
    Ok(())
}

/// Places by parameter, in the order of their offsets.
pub fn by_parameter(plan: &CheckpointPlan) -> BTreeMap<&str, Vec<&TensorPlace>> {
    let mut places: BTreeMap<&str, Vec<&TensorPlace>> = BTreeMap::new();
    for place in &plan.tensors {
        places
            .entry(place.parameter.as_str())
            .or_default()
            .push(place);
    }
    for list in places.values_mut() {
        list.sort_by_key(|place| place.offset);
    }
    places
}

/// Number of values of a place.
pub fn values(place: &TensorPlace) -> usize {
    place.shape.iter().product::<u64>() as usize
}

fn fill(model: &mut LoadedModel, plan: &CheckpointPlan, tensors: &Tensors) -> Result<()> {
    let mut places = by_parameter(plan);
    for index in 0..model.parameters().len() {
        let parameter = &model.parameters()[index];
        let (name, length) = (parameter.name.to_string(), parameter.len());
        let mut all = Vec::with_capacity(length);
        for place in places.remove(name.as_str()).unwrap_or_default() {
            if place.offset as usize != all.len() {
                return Err(LoadError::Words(format!(
                    "the plugin puts tensor `{}` at value {} of parameter `{name}`, where {} is next; \
                     this is a bug in the plugin",
                    place.tensor,
                    place.offset,
                    all.len()
                )));
            }
            let found = tensors
                .get(&place.tensor)
                .ok_or_else(|| LoadError::Words(format!("tensor `{}` is gone", place.tensor)))?;
            let read = tensors.floats(&place.tensor, found)?;
            if let Some(bad) = read.iter().position(|value| !value.is_finite()) {
                tracing::warn!("tensor `{}`: value {bad} is not finite", place.tensor);
            }
            all.extend(read.into_iter().map(|value| value + place.add));
        }
        if all.len() != length {
            return Err(LoadError::Words(format!(
                "the plugin fills {} of the {length} values of parameter `{name}`; this is a bug in \
                 the plugin",
                all.len()
            )));
        }
        model.write_parameter(index, &all)?;
    }
    match places.keys().next() {
        None => Ok(()),
        Some(name) => Err(LoadError::Words(format!(
            "the plugin fills a parameter `{name}` that its model has not; this is a bug in the plugin"
        ))),
    }
}
