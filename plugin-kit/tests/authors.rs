//! What an author's mistakes say: where it is, in which layer and operation, and what to do. Each mistake is a
//! small mixer that is right but for one thing.

use longhaul_plugin_kit::api::author::Model;
use longhaul_plugin_kit::api::data::{Batch, StepReport};
use longhaul_plugin_kit::api::error::{ErrorKind, PluginError};
use longhaul_plugin_kit::api::metadata::{Family, NAIVE, StateGrowth, capability, pair};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::model::KitModel;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::{
    Architecture, Block, Carries, Extent, Graph, Init, Mixer, Operation, Param, Ports, Real,
    Recurrence, Result, Run, Saved, Sequence, State, StateSpec, Tensor, options,
};

/// A layer of one function.
struct One(fn(&mut Graph, Tensor) -> Tensor);

impl Mixer for One {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.0(block.graph, x)
    }
}

options! {
    struct Options {
        taps: usize = 2, 1..=4 => "taps";
        heads: usize = 1, 1..=4 => "heads";
    }

    struct Misspelt {
        tap: usize = 2, 1..=4 => "taps";
    }

    struct Mistyped {
        taps: bool = false => "taps";
    }
}

fn architecture(mixer: fn(&Settings) -> Result<Box<dyn Mixer>>) -> Architecture {
    Architecture {
        name: "one",
        title: "one function",
        family: Family::LinearRnn,
        citation: "",
        options: Options::default().specs(),
        default_mlp: "none",
        mixer,
    }
}

fn build(architecture: &Architecture) -> Result<KitModel> {
    KitModel::new(architecture, &config(architecture, &[], 8, 2), true)
}

fn step(model: &mut KitModel) -> Result<StepReport> {
    let (tokens, targets) = ([1, 2, 3, 4], [2, 3, 4, 5]);
    model.loss_and_gradients(&Batch::new(&tokens, &targets, 2, 2))
}

fn says(error: &PluginError, parts: &[&str]) {
    assert_eq!(error.kind, ErrorKind::Internal, "{error}");
    for part in parts {
        assert!(
            error.message.contains(part),
            "`{part}` is missing in: {error}"
        );
    }
}

/// The error of a model that cannot be built.
fn refused(mixer: fn(&Settings) -> Result<Box<dyn Mixer>>) -> PluginError {
    let built = build(&architecture(mixer));
    built.err().expect("it is refused")
}

/// What `y = weight x` does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    Index,
    TwoViews,
    Input,
    Weight,
}

/// `y = weight x`, a channel at a time.
struct Scale {
    x: Tensor,
    y: Tensor,
    weight: Param,
    wrong: Wrong,
}

impl Scale {
    fn record(graph: &mut Graph, x: Tensor, wrong: Wrong) -> Tensor {
        let weight = graph.param("scale", &[x.cols()], Init::Ones);
        let y = graph.tensor(x.cols());
        graph.push(Self {
            x,
            y,
            weight,
            wrong,
        });
        y
    }
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "scaled"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (x, weight) = (run.value(self.x), run.param(self.weight));
        let mut y = run.value_mut(match self.wrong {
            Wrong::TwoViews => self.x,
            _ => self.y,
        });
        for at in 0..run.rows() * run.length() {
            for (c, y) in y.row_mut(at).iter_mut().enumerate() {
                let c = c + 8 * usize::from(self.wrong == Wrong::Index);
                *y = weight[c] * x.get().row(at)[c];
            }
        }
        Ok(())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, grad_y) = (run.value(self.x), run.grad(self.y));
        let weight = run.param(self.weight);
        let (mut grad_x, mut grad_weight) = (run.grad_mut(self.x), run.param_grad(self.weight));
        let adds = grad_x.accumulate() && self.wrong != Wrong::Input;
        for at in 0..run.rows() * run.length() {
            let (x, grad_y) = (x.get().row(at), grad_y.get().row(at));
            for c in 0..x.len() {
                let before = if adds { grad_x.row_mut(at)[c] } else { 0.0 };
                grad_x.row_mut(at)[c] = before + weight[c] * grad_y[c];
                let part = x[c] * grad_y[c];
                match self.wrong {
                    Wrong::Weight => grad_weight[c] = part,
                    _ => grad_weight[c] += part,
                }
            }
        }
        Ok(())
    }
}

fn scaled(wrong: Wrong) -> Result<StepReport> {
    let mixer: fn(&Settings) -> Result<Box<dyn Mixer>> = match wrong {
        Wrong::Nothing => |_| {
            Ok(Box::new(One(|graph, x| {
                Scale::record(graph, x, Wrong::Nothing)
            })))
        },
        Wrong::Index => |_| {
            Ok(Box::new(One(|graph, x| {
                Scale::record(graph, x, Wrong::Index)
            })))
        },
        Wrong::TwoViews => |_| {
            Ok(Box::new(One(|graph, x| {
                Scale::record(graph, x, Wrong::TwoViews)
            })))
        },
        Wrong::Input => |_| {
            Ok(Box::new(One(|graph, x| {
                Scale::record(graph, x, Wrong::Input)
            })))
        },
        Wrong::Weight => |_| {
            Ok(Box::new(One(|graph, x| {
                Scale::record(graph, x, Wrong::Weight)
            })))
        },
    };
    step(&mut build(&architecture(mixer))?)
}

const HERE: &str = "plugin-kit/tests/authors.rs:";

#[test]
fn a_panic_while_recording_says_line_layer_and_the_operation_before() {
    let error = refused(|_| {
        Ok(Box::new(One(|graph, x| {
            let wide = graph.linear("out_proj", x, 16, false);
            graph.add(wide, x)
        })))
    });
    let at = [
        "recording `layers.0.mixer`",
        "`linear` in `layers.0.mixer.out_proj`",
    ];
    says(&error, &[HERE, "unequal widths", at[0], at[1]]);
}

#[test]
fn a_result_of_another_width_is_told_by_layer_and_operation() {
    let error = refused(|_| {
        Ok(Box::new(One(|graph, x| {
            graph.linear("out_proj", x, 16, false)
        })))
    });
    let place = "after operation `linear` in `layers.0.mixer.out_proj`";
    says(
        &error,
        &[place, "`Mixer::forward` gave 16 columns", "8 wide"],
    );
}

#[test]
fn a_panic_while_running_says_line_operation_and_layer() {
    scaled(Wrong::Nothing).expect("nothing is wrong");
    let error = scaled(Wrong::Index).expect_err("an index past the end");
    says(
        &error,
        &[
            HERE,
            "forward of operation `scaled` in `layers.0.mixer`",
            "index",
        ],
    );
    let error = scaled(Wrong::TwoViews).expect_err("read and written at once");
    says(
        &error,
        &[HERE, "`scaled` in `layers.0.mixer`", "drop the first view"],
    );
}

#[test]
fn a_gradient_that_is_overwritten_is_an_error_even_where_nothing_was_lost() {
    let error = scaled(Wrong::Input).expect_err("an input's gradient is overwritten");
    says(
        &error,
        &[
            "backward of operation `scaled` in `layers.1.mixer`",
            "8 columns",
            "accumulate()",
        ],
    );
    let error = scaled(Wrong::Weight).expect_err("a parameter's gradient is overwritten");
    says(
        &error,
        &["backward of operation `scaled`", "`layers.1.mixer.scale`"],
    );
}

#[test]
fn a_name_that_two_parameters_have_is_refused_unless_they_are_one() {
    let error = refused(|_| {
        Ok(Box::new(One(|graph, x| {
            let x = graph.linear("proj", x, 8, false);
            graph.linear("proj", x, 8, false)
        })))
    });
    says(
        &error,
        &[HERE, "`layers.0.mixer.proj.weight`", "graph.shared("],
    );
    let shared = architecture(|_| {
        Ok(Box::new(One(|graph, x| {
            let x = graph.linear("proj", x, 8, false);
            graph.shared(|graph| graph.linear("proj", x, 8, false))
        })))
    });
    let mut model = build(&shared).expect("it is asked for");
    step(&mut model).expect("it runs");
    let names = model.parameters();
    let projections = names.iter().filter(|info| info.name.contains("proj"));
    assert_eq!(projections.count(), 2, "one a layer");
}

#[test]
fn an_option_that_is_not_declared_names_those_that_are() {
    let error = refused(|settings| {
        Misspelt::read(settings)?;
        unreachable!()
    });
    says(
        &error,
        &[
            "`tap` that it does not declare",
            "the nearest first, are taps, ",
        ],
    );
    let error = refused(|settings| {
        Mistyped::read(settings)?;
        unreachable!()
    });
    says(&error, &["`taps` as true or false", "another type"]);
}

#[test]
fn a_word_for_an_mlp_that_there_is_not_is_refused() {
    let mut own = architecture(|_| Ok(Box::new(One(|_, x| x))));
    own.default_mlp = "swiglu";
    let error = build(&own).err().expect("there is no such MLP");
    says(
        &error,
        &["default_mlp", "gated, geglu, gelu or none", "Mixer::mlp"],
    );
}

/// A state of `cols` values that nothing uses, with or without kernels.
struct Stateful {
    has_kernels: bool,
    _state: State,
    _kept: Saved,
}

static KERNELS: KernelSource = KernelSource {
    file: "none.cu",
    text: "",
    params: &[],
};

impl Operation for Stateful {
    fn name(&self) -> &'static str {
        "stateful"
    }

    fn forward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        self.has_kernels.then_some(&KERNELS).into_iter().collect()
    }

    fn cuda_forward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}

fn stateful(graph: &mut Graph, has_kernels: bool, window: Option<usize>) {
    let operation = Stateful {
        has_kernels,
        _state: graph.state(StateSpec::Cache {
            per_token: 1,
            window,
        }),
        _kept: graph.saved(Extent::Fixed(1)),
    };
    graph.push(operation);
}

/// A recurrence with a fast form, or with none.
struct Held {
    x: Tensor,
    is_fast: bool,
}

impl Recurrence for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.x],
            params: Vec::new(),
            cols: self.x.cols(),
            carries: Carries::History,
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, _state: &mut [N]) -> Vec<N> {
        given.inputs[0].clone()
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        self.is_fast.then(|| {
            stateful(graph, true, Some(4));
            self.x
        })
    }
}

#[test]
fn what_is_said_of_an_architecture_is_what_it_records() {
    let words = |mixer| {
        let info = architecture(mixer).info();
        let devices: Vec<String> = info.devices.iter().map(ToString::to_string).collect();
        let mut words = info.capabilities.iter();
        let has_reference = words.any(|word| word == capability::REFERENCE);
        (devices.join(" "), has_reference, info.state_growth)
    };
    let plain = words(|_| {
        Ok(Box::new(One(|graph, x| {
            graph.short_convolution("c", x, 3, true, Activation::Silu)
        })))
    });
    assert_eq!(plain, ("cpu cuda".to_owned(), false, StateGrowth::Constant));
    let on_cpu = words(|_| {
        Ok(Box::new(One(|graph, x| {
            stateful(graph, false, None);
            x
        })))
    });
    assert_eq!(on_cpu, ("cpu".to_owned(), false, StateGrowth::Linear));
    let with_reference = words(|_| {
        Ok(Box::new(One(|graph, x| {
            graph.record(Held { x, is_fast: true })
        })))
    });
    assert_eq!(
        with_reference,
        ("cpu cuda".to_owned(), true, StateGrowth::Window)
    );
    let naive = words(|_| {
        Ok(Box::new(One(|graph, x| {
            graph.record(Held { x, is_fast: false })
        })))
    });
    assert_eq!(naive, ("cpu".to_owned(), false, StateGrowth::Linear));
    let info = architecture(|_| {
        Ok(Box::new(One(|graph, x| {
            graph.record(Held { x, is_fast: false })
        })))
    })
    .info();
    assert_eq!(pair(&info.extra, NAIVE), Some("held"));
    // One that cannot be recorded says so when a model is built, and claims nothing before.
    let broken = words(|_| Ok(Box::new(One(|_, x| x.columns(0, 1 << 20)))));
    assert_eq!(broken, ("cpu".to_owned(), false, StateGrowth::Constant));
}
