//! A checkpoint's values in a plugin's model: the plugin says where each tensor goes, this moves them and
//! refuses whatever does not fit exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use longhaul_plugin_api::checkpoint::{
    BASE, CheckpointPlan, IGNORED, TIED, TensorPlace, WARNING, values,
};
use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedPlugin};
use longhaul_plugin_api::data::Device;
use longhaul_plugin_api::error::ErrorKind;
use longhaul_tasks::Named;

use crate::architecture::{ArchSpec, ModelSize};
use crate::catalogue::{Catalogue, Plugin, describe_here};
use crate::checkpoint::blame::{keys_of, with_keys};
use crate::checkpoint::files::{FileError, Folder};
use crate::checkpoint::tensors::Tensors;
use crate::find::did_you_mean;
use crate::memory::{self, Purpose};

/// The key by which a config ties the head to the embedding.
const TIE: &str = "tie_word_embeddings";

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

/// A library that reads checkpoints, opened in this process.
pub struct Library {
    plugin: LoadedPlugin,
    described: Plugin,
}

impl Library {
    /// Opens a library.
    ///
    /// # Errors
    /// One that cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let described = describe_here(path).map_err(|error| LoadError::Words(error.to_string()))?;
        let plugin = LoadedPlugin::open(path, crate::logging::plugin_log)?;
        Ok(Self { plugin, described })
    }

    /// The `model_type`s that it reads.
    pub fn model_types(&self) -> &[String] {
        &self.described.model_types
    }

    /// What it makes of a config.
    fn plan(&self, model_type: &str, config: &str) -> Result<CheckpointPlan> {
        let answer = self.plugin.checkpoint(model_type, config);
        let answer = answer.ok_or_else(|| {
            LoadError::Words(format!(
                "{} is older than checkpoints; build it anew",
                self.described.path.display()
            ))
        })?;
        Ok(answer?)
    }
}

/// A checkpoint as a plugin understands it, before a model is built.
pub struct Understood<'a> {
    /// The checkpoint, with the names of its tensors as the plan has them.
    pub folder: Folder,
    /// What the plugin says.
    pub plan: CheckpointPlan,
    /// The architecture with its checked options.
    pub spec: ArchSpec,
    /// What the user should know.
    pub warnings: Vec<String>,
    library: &'a Library,
}

impl<'a> Understood<'a> {
    /// Asks a library what a checkpoint is. `options` are the user's, instead of those of the config:
    /// `option=value,option=value`.
    ///
    /// # Errors
    /// A library that does not know; a config or options it refuses.
    pub fn ask(mut folder: Folder, library: &'a Library, options: &str) -> Result<Self> {
        let kind = folder.config.model_type.clone();
        let plan = library.plan(&kind, &folder.config.text);
        let mut plan = plan.map_err(|error| match folder.config.known_by() {
            "" => error,
            kind => LoadError::Words(format!("{error}{kind}")),
        })?;
        let mut warnings = folder.tensors.warnings.clone();
        warnings.extend(values(&plan.extra, WARNING).map(str::to_owned));
        complete_names(&mut folder.tensors, &plan);
        if let Some((head, embedding)) = head_of_its_own(&folder.tensors, &plan)? {
            warnings.push(format!(
                "`{TIE}` in config.json ties `{head}` to `{embedding}`, and the file has different values \
                 for the two, which are used"
            ));
            plan = library.plan(&kind, &folder.config.with(TIE, false.into()))?;
        }
        let spec = spec(&plan, &library.described, options)
            .map_err(|error| LoadError::Words(with_keys(&error, &plan)))?;
        Ok(Self {
            folder,
            plan,
            spec,
            warnings,
            library,
        })
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
    /// A tensor that is unknown, missing or of another shape; a model that memory does not hold; a plan
    /// that does not fill the model.
    pub fn build(&mut self, device: Device) -> Result<LoadedModel> {
        self.check_tensors()?;
        let sizes = self.plan.tensors.iter().map(TensorPlace::values);
        let parameters = sizes.fold(0u64, u64::saturating_add);
        memory::check(self.size(), Some(parameters), Purpose::Reading, None)
            .map_err(|error| LoadError::Words(with_keys(&error, &self.plan)))?;
        let config = self.spec.config(self.size(), 0, device);
        let model = self.library.plugin.build(&config);
        let mut model = model.map_err(|error| match error.kind() {
            ErrorKind::BadOption => LoadError::Words(with_keys(&error.to_string(), &self.plan)),
            _ => error.into(),
        })?;
        let odd = fill(&mut model, &self.plan, &self.folder.tensors)?;
        self.warnings.extend(odd);
        Ok(model)
    }

    /// Every tensor has a place, every place a tensor of its shape.
    fn check_tensors(&self) -> Result<()> {
        let Self { folder, plan, .. } = self;
        let (path, kind) = (folder.path.display(), &folder.config.model_type);
        let refuse = |what: String, tensor: &str| {
            let keys = keys_of(&self.library.plugin, &folder.config, plan, tensor);
            Err(LoadError::Words(what + &keys))
        };
        for place in &plan.tensors {
            let expected = place.tensor_shape();
            match folder.tensors.get(&place.tensor) {
                None => {
                    let known = folder.tensors.iter().map(|(name, _)| name);
                    let near = did_you_mean(&place.tensor, known);
                    let what = format!(
                        "{path} has no tensor `{}`{near}; a {kind} of this config needs it, of shape \
                         {expected:?}",
                        place.tensor,
                    );
                    return refuse(what, &place.tensor);
                }
                Some(found) if found.shape != expected => {
                    let what = format!(
                        "tensor `{}` in {path} is of shape {:?}; the config asks for {expected:?}",
                        place.tensor, found.shape
                    );
                    return refuse(what, &place.tensor);
                }
                Some(_) => {}
            }
        }
        let placed: BTreeSet<&str> = plan
            .tensors
            .iter()
            .map(|place| place.tensor.as_str())
            .collect();
        for (name, found) in folder.tensors.iter() {
            if !placed.contains(name) && !is_ignored(plan, name) {
                let what = format!(
                    "{path} has a tensor `{name}` of shape {:?} that a {kind} of this config has not; is \
                     config.json of another model?",
                    found.shape
                );
                return refuse(what, name);
            }
        }
        Ok(())
    }
}

/// The architecture of a plan with its checked options.
fn spec(
    plan: &CheckpointPlan,
    described: &Plugin,
    given: &str,
) -> std::result::Result<ArchSpec, String> {
    let name = &plan.architecture;
    let given = Named::parse(&format!("{name}:{given}")).map_err(|error| error.to_string())?;
    let is_given = |option: &str| given.options.iter().any(|(name, _)| name == option);
    let planned = plan.options.iter();
    let planned = planned.map(|option| (option.0.as_str(), option.1.as_str()));
    let options: Vec<String> = planned
        .filter(|(option, _)| !is_given(option))
        .chain(
            given
                .options
                .iter()
                .map(|(option, value)| (option.as_str(), value.as_str())),
        )
        .map(|(option, value)| format!("{option}={value}"))
        .collect();
    let text = format!("{name}:{}", options.join(","));
    let catalogue = Catalogue {
        plugins: vec![described.clone()],
    };
    let spec = ArchSpec::parse(&text, &catalogue).and_then(ArchSpec::of_one_model);
    let mut spec = spec.map_err(|error| error.to_string())?;
    (spec.d_model, spec.layers) = (Some(plan.d_model), Some(plan.layers));
    Ok(spec)
}

/// Whether a tensor may be there without a place.
pub fn is_ignored(plan: &CheckpointPlan, tensor: &str) -> bool {
    values(&plan.extra, IGNORED).any(|end| tensor.ends_with(end))
}

/// Puts before names what files of a model without its head leave out, where no name has it.
fn complete_names(tensors: &mut Tensors, plan: &CheckpointPlan) {
    let Some(base) = values(&plan.extra, BASE).next() else {
        return;
    };
    if tensors.iter().any(|(name, _)| name.starts_with(base)) {
        return;
    }
    let known: BTreeSet<&str> = plan
        .tensors
        .iter()
        .map(|place| place.tensor.as_str())
        .collect();
    tensors.rename(|name| {
        let whole = format!("{base}{name}");
        match known.contains(whole.as_str()) && !known.contains(name) {
            true => whole,
            false => name.to_owned(),
        }
    });
}

/// Head and embedding of a file that has different values for the two where its config ties them.
fn head_of_its_own<'a>(
    tensors: &Tensors,
    plan: &'a CheckpointPlan,
) -> Result<Option<(&'a str, &'a str)>> {
    let tied = values(&plan.extra, TIED).filter_map(|pair| pair.split_once(' '));
    for (head, embedding) in tied {
        let both = tensors.get(head).is_some() && tensors.get(embedding).is_some();
        if both && !tensors.are_equal(head, embedding)? {
            return Ok(Some((head, embedding)));
        }
    }
    Ok(None)
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

/// Writes every parameter, one in memory at a time; says which tensors have values that are not finite.
fn fill(model: &mut LoadedModel, plan: &CheckpointPlan, tensors: &Tensors) -> Result<Vec<String>> {
    let mut odd = Vec::new();
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
            let start = all.len();
            let range = place.range();
            if range.end > found.shape.iter().product() {
                return Err(LoadError::Words(format!(
                    "the plugin takes values {range:?} of tensor `{}`; this is a bug in the plugin",
                    place.tensor
                )));
            }
            tensors.read(&place.tensor, found, range, &mut all)?;
            let read = &mut all[start..];
            if let Some(bad) = read.iter().position(|value| !value.is_finite()) {
                odd.push(format!(
                    "tensor `{}`: value {bad} is not finite",
                    place.tensor
                ));
            }
            read.iter_mut().for_each(|value| *value += place.add);
            tensors.forget(found);
        }
        if all.len() != length {
            return Err(LoadError::Words(format!(
                "the plugin fills {} of the {length} values of parameter `{name}`; this is a bug in the plugin, \
                 or an option was given that changes a shape",
                all.len()
            )));
        }
        model.write_parameter(index, &all)?;
    }
    match places.keys().next() {
        None => Ok(odd),
        Some(name) => Err(LoadError::Words(format!(
            "the plugin fills a parameter `{name}` that its model has not; this is a bug in the plugin"
        ))),
    }
}
