//! Both memories in one model by a pattern, xLSTM[a:b] of the paper.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::options::{Settings, part};
use longhaul_plugin_kit::{
    Architecture, Block, Mixer, PluginError, Result, Tensor, options, pattern,
};

use crate::mlstm::{self, CITATION, MatrixMemory};
use crate::slstm::{self, ScalarMemory};

options! {
    struct Options {
        pattern: String = "mlstm+slstm".into()
            => "kinds of the layers, repeated: mlstm*7+slstm is the paper's xLSTM[7:1]";
    }
}

/// The architecture `xlstm`.
pub fn architecture() -> Architecture {
    let matrix = mlstm::Options {
        block: mlstm::Kind::PreUp,
        ..mlstm::Options::default()
    };
    let mut options = Options::default().specs();
    options.extend(part("mlstm", matrix.specs()));
    options.extend(part("slstm", slstm::Options::default().specs()));
    Architecture {
        name: "xlstm",
        title: "xLSTM: layers of matrix and of scalar memories, mLSTM and sLSTM",
        family: Family::Rnn,
        citation: CITATION,
        options,
        default_mlp: "geglu",
        mixer: |settings| Ok(Box::new(Mixed::new(settings)?)),
    }
}

struct Mixed {
    matrix: MatrixMemory,
    scalar: ScalarMemory,
    /// Whether each layer has a matrix memory.
    layers: Vec<bool>,
}

impl Mixed {
    fn new(settings: &Settings) -> Result<Self> {
        let kinds = pattern::parse(&Options::read(settings)?.pattern, &["mlstm", "slstm"])
            .and_then(|pattern| pattern::deal(&pattern, settings.layers()))
            .map_err(PluginError::bad_option)?;
        Ok(Self {
            matrix: MatrixMemory::new(&settings.part("mlstm"))?,
            scalar: ScalarMemory::new(&settings.part("slstm"))?,
            layers: kinds.into_iter().map(|kind| kind == "mlstm").collect(),
        })
    }

    fn of(&self, layer: usize) -> &dyn Mixer {
        match self.layers[layer] {
            true => &self.matrix,
            false => &self.scalar,
        }
    }
}

impl Mixer for Mixed {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.of(block.layer).forward(block, x)
    }

    fn has_mlp(&self, layer: usize) -> bool {
        self.of(layer).has_mlp(layer)
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        // Those of the code that has both.
        self.scalar.starts(settings, usual)
    }

    fn min_rows(&self) -> usize {
        self.scalar.min_rows()
    }
}
