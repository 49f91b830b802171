//! The kernels of one operation by themselves on a card, as JSON lines: seconds of a pass, the bytes it has to
//! move at least. `tests/gpu/kernels.py` sets other libraries' beside them.
//!
//! `cargo run --release -p longhaul-hybrid --example kernel_speed -- scan --batch 8 --length 2048`
//!
//! Operations: `scan` (Mamba's selective scan), `ssd` (Mamba-2's operation), `attention` (causal softmax
//! attention), `copy` (a copy inside the device, of `--length` MiB). `--device emulated` runs the same kernels on the CPU: it
//! shows that they run, its times mean nothing.
//!
//! `LONGHAUL_PRODUCTS` says how a card multiplies. Values are held against those of the same kernels with float32
//! products, on a part of the shape: `error` is the largest difference, `usual_error` what 9,999 of 10,000 values do not
//! exceed, `tolerance` what the kit's tests accept.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use longhaul_mamba::ScanInputs;
use longhaul_mamba2::{SsdInputs, ssd};
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::cuda::driver::Driver;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::tolerance;
use longhaul_plugin_kit::testing_speed::{Speed, copy_bandwidth};
use longhaul_plugin_kit::{Graph, Init, Tensor};

const USAGE: &str = "usage: kernel_speed scan|ssd|attention|copy [--device cuda:0] [--batch 8] [--length 2048] \
                     [--d-inner 2048] [--state 16] [--head-dim 64] [--seconds 0.5]";

/// Most sequences and positions of a comparison, whose values are all read.
const COMPARED: (usize, usize) = (2, 4096);

/// What is to be timed.
struct Plan {
    operation: String,
    device: String,
    /// B.
    batch: usize,
    /// T.
    length: usize,
    d_inner: usize,
    /// N.
    state: usize,
    head_dim: usize,
    seconds: f64,
}

impl Plan {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let operation = words.next().ok_or(USAGE)?;
        let mut given = HashMap::new();
        while let Some(name) = words.next() {
            let value = words
                .next()
                .ok_or(format!("{name} has no value; {USAGE}"))?;
            given.insert(name, value);
        }
        let mut text = |name: &str, default: &str| given.remove(name).unwrap_or(default.to_owned());
        let device = text("--device", "cuda:0");
        let mut number = |name: &str, default: &str| {
            let value = text(name, default);
            let number = value.parse().ok().filter(|number| *number > 0);
            number.ok_or(format!("{name} {value} is no number from 1 on"))
        };
        let plan = Self {
            operation,
            device,
            batch: number("--batch", "8")?,
            length: number("--length", "2048")?,
            d_inner: number("--d-inner", "2048")?,
            state: number("--state", "16")?,
            head_dim: number("--head-dim", "64")?,
            seconds: text("--seconds", "0.5").parse().map_err(|_| USAGE)?,
        };
        match given.keys().next() {
            Some(name) => Err(format!("{name} is unknown; {USAGE}")),
            None if !plan.d_inner.is_multiple_of(plan.head_dim) => {
                Err("--head-dim must divide --d-inner".to_owned())
            }
            None => Ok(plan),
        }
    }

    fn open(&self, precision: Precision) -> Result<Arc<dyn Device>, String> {
        if self.device == "emulated" {
            let first = longhaul_emulator::devices_of(precision).into_iter().next();
            return first.ok_or("the emulator has no device".to_owned());
        }
        let index = self
            .device
            .strip_prefix("cuda:")
            .and_then(|n| n.parse().ok());
        let index = index.ok_or(format!(
            "--device {} is not cuda:N or emulated",
            self.device
        ))?;
        let driver = Driver::open_with(index, precision);
        Ok(Arc::new(driver.map_err(|e| e.to_string())?))
    }

    fn heads(&self) -> usize {
        self.d_inner / self.head_dim
    }

    fn scan(&self, graph: &mut Graph, inputs: &[Tensor]) -> Tensor {
        let row = (1..=self.state).map(|n| (n as f32).ln());
        let start = std::iter::repeat_n(row, self.d_inner).flatten().collect();
        let shape = [self.d_inner, self.state];
        let inputs = ScanInputs {
            u: inputs[0],
            delta: inputs[1],
            b: inputs[2],
            c: inputs[3],
            a_log: graph.param_without_decay("A_log", &shape, Init::Values(start)),
            d: graph.param_without_decay("D", &[self.d_inner], Init::Ones),
            negative: false,
        };
        graph.record(inputs)
    }

    fn ssd(&self, graph: &mut Graph, inputs: &[Tensor]) -> Tensor {
        let heads = self.heads();
        let mut param = |name, init| graph.param_without_decay(name, &[heads], init);
        let inputs = SsdInputs {
            x: inputs[0],
            b: inputs[1],
            c: inputs[2],
            dt: inputs[3],
            a_log: param("A_log", Init::Constant(1.0)),
            d: param("D", Init::Ones),
            dt_bias: param("dt_bias", Init::Constant(-4.0)),
        };
        ssd(graph, inputs, 1, 64)
    }

    fn attention(&self, graph: &mut Graph, inputs: &[Tensor]) -> Tensor {
        let spec = AttentionSpec {
            heads: self.heads(),
            kv_heads: self.heads(),
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            window: None,
            bias: PositionBias::None,
        };
        graph.attention(inputs[0], inputs[1], inputs[2], spec)
    }

    /// Columns of the inputs, in the order that the operation takes them.
    fn inputs(&self) -> Result<Vec<usize>, String> {
        let (inner, state) = (self.d_inner, self.state);
        match self.operation.as_str() {
            "scan" => Ok(vec![inner, inner, state, state]),
            "ssd" => Ok(vec![inner, state, state, self.heads()]),
            "attention" => Ok(vec![inner; 3]),
            other => Err(format!("`{other}` is unknown; {USAGE}")),
        }
    }

    fn run(&self) -> Result<(), String> {
        let precision = Precision::from_environment().map_err(|error| error.to_string())?;
        let device = self.open(precision)?;
        if self.operation == "copy" {
            let bytes = copy_bandwidth(&device, self.length << 20, self.seconds);
            let bytes = bytes.map_err(|error| error.to_string())?;
            println!(
                "{{\"operation\":\"copy\",\"mebibytes\":{},\"bytes_per_second\":{bytes:.0}}}",
                self.length
            );
            return Ok(());
        }
        let inputs = self.inputs()?;
        let build = |graph: &mut Graph, tensors: &[Tensor]| match self.operation.as_str() {
            "scan" => self.scan(graph, tensors),
            "ssd" => self.ssd(graph, tensors),
            _ => self.attention(graph, tensors),
        };
        let speed = Speed {
            rows: self.batch,
            length: self.length,
            inputs: &inputs,
            range: (-1.0, 1.0),
            build: &build,
        };
        let part = Speed {
            rows: self.batch.min(COMPARED.0),
            length: self.length.min(COMPARED.1),
            ..speed
        };
        let errors = part.errors(&device, &self.open(Precision::Float32)?);
        let errors = errors.map_err(|error| error.to_string())?;
        let accepted = tolerance(precision);
        let times = speed.measure(&device, self.seconds);
        let times = times.map_err(|error| error.to_string())?;
        // Forward reads the inputs and writes the output; backward reads the inputs and the output's gradient and writes the
        // inputs' gradients.
        let tokens = self.batch * self.length;
        let read: usize = inputs.iter().sum();
        let forward = 4 * tokens * (read + self.d_inner);
        let backward = 4 * tokens * (2 * read + self.d_inner);
        for (pass, seconds, bytes, error, accepted) in [
            (
                "forward",
                times.forward_s,
                forward,
                errors.forward,
                accepted.forward,
            ),
            (
                "backward",
                times.backward_s,
                backward,
                errors.backward,
                accepted.backward,
            ),
        ] {
            println!(
                "{{\"operation\":\"{}\",\"pass\":\"{pass}\",\"batch\":{},\"length\":{},\"d_inner\":{},\"state\":{},\"head_dim\":{},\"seconds\":{seconds:e},\"bytes\":{bytes},\"error\":{:e},\"usual_error\":{:e},\"tolerance\":{accepted:e}}}",
                self.operation,
                self.batch,
                self.length,
                self.d_inner,
                self.state,
                self.head_dim,
                error.largest,
                error.usual
            );
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match Plan::parse(std::env::args().skip(1)).and_then(|plan| plan.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
