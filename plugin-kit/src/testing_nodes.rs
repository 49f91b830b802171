//! What one training step of a whole model asks of a device: the list of what is recorded, by names. Nothing of it runs,
//! so sizes may be those of a card. For tests only.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_plugin_api::author::{Model, Result};
use longhaul_plugin_api::data::{Batch, ModelConfig, TrainConfig};

use crate::backbone::Architecture;
use crate::cuda::device::{
    Device, Epilogue, Kernel, KernelSource, Launch, Product, Ptr, Recording,
};
use crate::cuda::plugin::DeviceKitModel;
use crate::precision::Precision;

/// A device that does nothing and writes down what it is asked for.
struct Listing {
    precision: Precision,
    next: AtomicU64,
    nodes: Mutex<Vec<String>>,
}

struct Listed(usize);

impl Recording for Listed {
    fn nodes(&self) -> usize {
        self.0
    }
}

impl Listing {
    fn note(&self, what: &str) -> Result<()> {
        let mut nodes = self.nodes.lock().expect("no panic holds it");
        nodes.push(what.to_owned());
        Ok(())
    }
}

impl Device for Listing {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        let bytes = bytes.next_multiple_of(256) as u64;
        Ok(Ptr(self.next.fetch_add(bytes, Ordering::Relaxed)))
    }

    fn free(&self, _memory: Ptr) {}

    fn upload(&self, _to: Ptr, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _from: Ptr, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn copy(&self, _to: Ptr, _from: Ptr, _bytes: usize) -> Result<()> {
        self.note("copy")
    }

    fn fill(&self, _to: Ptr, _word: u32, _count: usize) -> Result<()> {
        self.note("fill")
    }

    fn fill_rows(&self, _to: Ptr, _word: u32, _sizes: [usize; 3]) -> Result<()> {
        self.note("fill_rows")
    }

    fn load(&self, _sources: &[&'static KernelSource]) -> Result<()> {
        Ok(())
    }

    fn launch(&self, kernel: Kernel, _launch: Launch, _params: &[u8]) -> Result<()> {
        self.note(kernel.name)
    }

    fn product(&self, product: Product) -> Result<()> {
        let besides = match product.epilogue {
            Epilogue::None => "",
            Epilogue::AddRow(_) => ", a row added",
            Epilogue::RowSums(_) => ", sums of rows",
        };
        let apart = product.added.data != product.c.data;
        self.note(&format!(
            "product{}{besides}",
            if apart { ", a matrix added" } else { "" }
        ))
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>> {
        self.nodes.lock().expect("no panic holds it").clear();
        work()?;
        let nodes = self.nodes.lock().expect("no panic holds it").len();
        Ok(Box::new(Listed(nodes)))
    }

    fn replay(&self, recording: &dyn Recording) -> Result<()> {
        let recording: &dyn Any = recording;
        assert!(recording.is::<Listed>(), "a recording of another device");
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

/// The nodes of a recorded training step, in order, on a device that multiplies so: of `rows` sequences of `length` tokens,
/// all of them scored.
///
/// # Panics
/// If an option is refused, or the architecture has no kernels.
pub fn step_nodes(
    architecture: &Architecture,
    config: &ModelConfig,
    precision: Precision,
    [rows, length]: [usize; 2],
) -> Vec<String> {
    let listing = Arc::new(Listing {
        precision,
        next: AtomicU64::new(256),
        nodes: Mutex::default(),
    });
    let device: Arc<dyn Device> = Arc::clone(&listing) as Arc<dyn Device>;
    let mut model = DeviceKitModel::new(architecture, config, &device).expect("a model");
    // A step whose report is not read: there is nothing to read.
    let training = TrainConfig {
        total_steps: 4,
        ..TrainConfig::default()
    };
    let training = training.reported_every(4);
    model.begin_training(&training).expect("a training");
    let (tokens, targets) = (vec![0; rows * length], vec![0; rows * length]);
    let batch = Batch::new(&tokens, &targets, rows, length);
    model.train_step(&batch, 1).expect("a step");
    listing.nodes.lock().expect("no panic holds it").clone()
}

/// Holds the number of nodes of a training step of B 64, T 256, V 512, 2 layers and D 128, as `tests/gpu` times it, to a bar.
///
/// # Panics
/// If there are more, or fewer: the bar is to follow.
pub fn check_step_nodes(architecture: &Architecture, precision: Precision, bar: usize) {
    let mut config = crate::testing::config(architecture, &[], 128, 2);
    config.vocab = 512;
    config.max_train_length = 256;
    let nodes = step_nodes(architecture, &config, precision, [64, 256]);
    let (name, count) = (architecture.name, nodes.len());
    println!("{name}: {count} nodes in a training step");
    assert_eq!(count, bar, "{name}: nodes of a training step: {nodes:#?}");
}
