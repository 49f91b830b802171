//! The operator of order N (arXiv 2302.10866, definition 3.1) as in HazyResearch/safari, `standalone_hyena.py`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Tensor, options};

use crate::filter::{Filter, FilterOptions};

/// Taps of the short convolution.
const SHORT: usize = 3;

options! {
    struct Options {
        order: usize = 2, 2..=8 => "gates, one more than long convolutions";
        filter: FilterOptions;
    }
}

/// The architecture `hyena`.
pub fn hyena() -> Architecture {
    Architecture {
        name: "hyena",
        title: "Hyena: gated long convolutions with implicit filters, as long as filter_length",
        family: Family::Convolution,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| {
            let Options { order, filter } = Options::read(settings)?;
            Ok(Box::new(Hyena {
                order,
                start: filter.init,
                filter: Filter::new(settings, filter)?,
            }))
        },
    }
}

const CITATION: &str = "@inproceedings{poli2023hyena,
  title={Hyena Hierarchy: Towards Larger Convolutional Language Models},
  author={Poli, Michael and Massaroli, Stefano and Nguyen, Eric and Fu, Daniel Y and Dao, Tri and Baccus, Stephen
    and Bengio, Yoshua and Ermon, Stefano and R{\\'e}, Christopher},
  booktitle={ICML}, year={2023}, note={arXiv:2302.10866}
}";

struct Hyena {
    order: usize,
    filter: Filter,
    start: InitialValues,
}

impl Hyena {
    /// A linear layer as PyTorch starts it, or by `weight` with a bias of 0.
    fn dense(&self, graph: &mut Graph, name: &str, x: Tensor, out: usize, weight: Init) -> Tensor {
        let uniform = Init::within(1.0 / (x.cols() as f32).sqrt());
        let (weight, bias) = self
            .start
            .choose((weight, Init::Zeros), (uniform.clone(), uniform));
        let weight = graph.param(&format!("{name}.weight"), &[out, x.cols()], weight);
        let bias = graph.param(&format!("{name}.bias"), &[out], bias);
        graph.linear_by(x, weight, Some(bias))
    }
}

impl Mixer for Hyena {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, width, order) = (&mut *block.graph, x.cols(), self.order);
        let filters = graph.scope("filter", |graph| {
            self.filter.tables(graph, order - 1, width)
        });
        let all = self.dense(
            graph,
            "in_proj",
            x,
            (order + 1) * width,
            Init::Linear { gain: 1.0 },
        );
        let short = Init::within(1.0 / (SHORT as f32).sqrt());
        let bias = self.start.choose(Init::Zeros, short.clone());
        let all = graph.short_convolution_with(
            "short_filter",
            all,
            SHORT,
            short,
            Some(bias),
            Activation::Identity,
        );
        let part = |index: usize| all.columns(index * width, width);
        let mut v = part(order);
        for (index, filter) in filters.into_iter().enumerate() {
            let input = graph.gate(part(order - 1 - index), v, Activation::Identity);
            let through = graph.param_without_decay(
                &format!("D{index}"),
                &[width],
                Init::Normal { std: 1.0 },
            );
            let through = graph.constant(through);
            let through = graph.gate(through, input, Activation::Identity);
            let convolved = graph.long_convolution(filter, input);
            v = graph.add(convolved, through);
        }
        let y = graph.gate(part(0), v, Activation::Identity);
        self.dense(graph, "out_proj", y, width, residual_init(block.layers))
    }
}
