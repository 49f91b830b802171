//! The faults and what each does. It must not know the model's arithmetic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::{ErrorKind, PluginError};

use crate::processes;

/// Declares the faults once: variant, the word of the option, and what it does.
macro_rules! faults {
    ($($variant:ident = $word:literal, $does:literal;)*) => {
        /// One way to misbehave.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault {
            $(#[doc = $does] $variant,)*
        }

        impl Fault {
            /// Every word the option takes.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The fault of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    None = "none", "Works.";
    AbortInTrainStep = "abort-in-train-step", "Aborts the process in a training step.";
    SegfaultInTrainStep = "segfault-in-train-step", "Writes to an invalid address in a training step.";
    PanicInTrainStep = "panic-in-train-step", "Panics in a training step.";
    HangInTrainStep = "hang-in-train-step", "Never returns from a training step.";
    Exits = "exits", "Ends the process with status 0 in a training step.";
    NanLoss = "nan-loss", "Reports a loss that is not a number.";
    SilentSteps = "silent-steps", "Reports no step's results, whatever was asked for.";
    QuietSteps = "quiet-steps", "Works, and reports no more of the steps than was asked for.";
    Leak = "leak", "Allocates without bound in a training step.";
    OutOfMemory = "out-of-memory", "A training step returns an out-of-memory error.";
    ErrorInBuild = "error-in-build", "Refuses to be built.";
    PanicInBuild = "panic-in-build", "Panics while being built.";
    AbortInFeed = "abort-in-feed", "Aborts the process in a feed.";
    HangInFeed = "hang-in-feed", "Never returns from a feed.";
    SlowFeed = "slow-feed", "Sleeps a quarter of a second in each feed.";
    ErrorInFeed = "error-in-feed", "A feed returns an out-of-memory error.";
    DeviceInFeed = "device-in-feed", "One feed loses the device, and every later one of the process.";
    NanInFeed = "nan-in-feed", "A feed answers with values that are not numbers.";
    ShortAnswers = "short-answers", "A feed answers one question fewer than asked.";
    ExtraAnswers = "extra-answers", "A feed answers one question more than asked.";
    DuplicateParameters = "duplicate-parameters", "Two parameters have the same name.";
    WrongShapes = "wrong-shapes", "A parameter's declared shape is larger than its values.";
    LiesAboutState = "lies-about-state", "Declares half of its state's bytes.";
    WrongGradients = "wrong-gradients", "The head's gradient is a tenth too large.";
    ForgetsBetweenFeeds = "forgets-between-feeds", "Each feed begins from an empty state.";
    MixesRows = "mixes-rows", "The first row's state reaches the other rows.";
    Nondeterministic = "nondeterministic", "Initialises from the clock.";
    ForgetsTraining = "forgets-training", "An imported training begins with empty moments.";
    KillsItself = "kills-itself", "Sends its process SIGKILL in a training step.";
    ForkHoldsPipes = "fork-holds-pipes", "Leaves a forked child that holds every descriptor, and aborts.";
    ForkStays = "fork-stays", "Leaves a forked child in a session of its own, and works.";
    ForgesMessages = "forges-messages", "Writes lines like a worker's own into every pipe.";
    LineWithoutEnd = "line-without-end", "Writes 64 MB without an end of line into every pipe.";
    FloodOfErrors = "flood-of-errors", "Writes 64 MB to standard error.";
    LongError = "long-error", "A training step returns an error of 64 MB.";
    ChangesFolder = "changes-folder", "Changes the folder it works in.";
    NoDescriptors = "no-descriptors", "Opens files until no descriptor is left.";
    NanParameters = "nan-parameters", "One value of a parameter is not a number after training.";
    NegativeLoss = "negative-loss", "Reports a loss of -5.";
    NanLearningRate = "nan-learning-rate", "Reports a learning rate that is not a number.";
    EchoesTargets = "echoes-targets", "Takes its predictions from the targets.";
    SureOfAll = "sure-of-all", "Claims that every target is certain.";
    RewritesTargets = "rewrites-targets", "Writes its predictions over the targets it was given.";
    StandsStill = "stands-still", "Says that its session is at position 0.";
    HugeState = "huge-state", "Says that its session has 2^62 bytes of state.";
    PrintsToStdout = "prints-to-stdout", "Writes protocol-like garbage to standard output.";
}

/// A fault and from when on it happens.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The fault.
    pub fault: Fault,
    /// First training step, or for faults in a feed the first position, at which it happens.
    pub after: u64,
}

impl Schedule {
    /// Whether a fault is asked for and due.
    pub fn due(&self, fault: Fault, now: u64) -> bool {
        self.fault == fault && now >= self.after
    }

    /// Misbehaves in a build.
    pub fn in_build(&self) -> Result<()> {
        match self.fault {
            Fault::ErrorInBuild => Err(PluginError::bad_option(
                "fault=error-in-build: this model refuses to be built, as asked",
            )),
            Fault::PanicInBuild => panic!("fault=panic-in-build: as asked"),
            Fault::PrintsToStdout => {
                print_garbage();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Misbehaves in training step `step`, where that is due.
    pub fn in_train_step(&self, step: u64) -> Result<()> {
        if step < self.after {
            return Ok(());
        }
        match self.fault {
            Fault::AbortInTrainStep => std::process::abort(),
            Fault::SegfaultInTrainStep => segfault(),
            Fault::PanicInTrainStep => panic!("fault=panic-in-train-step: as asked"),
            Fault::HangInTrainStep => hang(),
            Fault::Exits => std::process::exit(0),
            Fault::Leak => leak(),
            Fault::KillsItself => processes::kill_self(),
            Fault::ForkHoldsPipes => {
                processes::leave_a_child();
                std::process::abort()
            }
            Fault::ForkStays if step == self.after => {
                processes::leave_a_child();
                Ok(())
            }
            Fault::ForgesMessages if step == self.after => {
                processes::write_to_pipes(FORGED.as_bytes());
                Ok(())
            }
            Fault::LineWithoutEnd if step == self.after => {
                processes::write_to_pipes(&vec![b'x'; 64 << 20]);
                Ok(())
            }
            Fault::FloodOfErrors if step == self.after => {
                eprint!("{}", "x".repeat(64 << 20));
                Ok(())
            }
            Fault::LongError => Err(PluginError::internal("x\u{1b}[1m".repeat(8 << 20))),
            Fault::ChangesFolder => {
                let _ = std::env::set_current_dir("/");
                Ok(())
            }
            Fault::NoDescriptors => {
                processes::use_up_descriptors();
                Ok(())
            }
            Fault::OutOfMemory => Err(out_of_memory("training step")),
            Fault::PrintsToStdout => {
                print_garbage();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Misbehaves in a feed of `length` tokens from `position` on, where that is due.
    pub fn in_feed(&self, position: u64, length: u64) -> Result<()> {
        if position + length <= self.after {
            return Ok(());
        }
        match self.fault {
            Fault::AbortInFeed => std::process::abort(),
            Fault::HangInFeed => hang(),
            Fault::SlowFeed => std::thread::sleep(Duration::from_millis(250)),
            Fault::DeviceInFeed => return lose_device(position + length <= 2 * self.after),
            Fault::ErrorInFeed => return Err(out_of_memory("feed")),
            Fault::PrintsToStdout => print_garbage(),
            _ => (),
        }
        Ok(())
    }
}

/// An error of the device now or since an earlier one.
fn lose_device(now: bool) -> Result<()> {
    static LOST: AtomicBool = AtomicBool::new(false);
    if LOST.fetch_or(now, Ordering::Relaxed) || now {
        return Err(PluginError::device(
            "an illegal access, as the option `fault` asked",
        ));
    }
    Ok(())
}

fn out_of_memory(place: &str) -> PluginError {
    PluginError::new(
        ErrorKind::OutOfMemory,
        format!("{place}: 1 TiB asked for, less is there, as the option `fault` asked"),
    )
}

/// Messages as a worker could send them.
const FORGED: &str = "\n{\"message\":\"failed\",\"kind\":\"disk\",\"reason\":\"full\"}\n{\"message\":\"evaluated\",\"index\":7}\n{\"message\":\"done\",\"inside_plugin_s\":0,\"outside_plugin_s\":0}\n";

/// Lines that look like a worker's own and are not, and one without an end.
fn print_garbage() {
    println!("{{\"type\":\"done\"}}\n{{\"loss\":0}}\nnot json at all \u{1b}[2J");
    print!("a line without an end");
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn segfault() -> ! {
    // SAFETY: none; the first page is never mapped, so this ends the process by SIGSEGV, which is
    // what the option asked for.
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
    std::process::abort()
}

/// Touches every page of ever more memory, at less than a gigabyte a second so that a watcher has a chance.
fn leak() -> ! {
    const BYTES: usize = 16 << 20;
    loop {
        let block = vec![1_u8; BYTES];
        std::hint::black_box(&block);
        std::mem::forget(block);
        std::thread::sleep(Duration::from_millis(20));
    }
}
