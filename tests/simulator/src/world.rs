//! Everything there is: the cards' contexts and what was made in them, by handle. A handle is given once.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use longhaul_emulator::native::Library;

use crate::code::{Code, Outcome, fail};
use crate::log;
use crate::memory::{DeviceMemory, PinnedMemory};
use crate::settings::SETTINGS;
use crate::stream::Stream;
use crate::work::{Event, Function, Work};

/// A card's primary context, from its first retaining to its last release.
pub struct Context {
    pub handle: usize,
    /// Number of the card, as the process sees it.
    pub device: usize,
    /// The code that every call gets since something went wrong; 0 before.
    broken: AtomicI32,
}

impl Context {
    /// The error that stays.
    pub fn error(&self) -> Outcome {
        Code::of(self.broken.load(Ordering::Acquire)).map_or(Ok(()), Err)
    }

    /// Everything fails with this from now on.
    pub fn break_down(&self, code: Code) {
        let _ = self
            .broken
            .compare_exchange(0, code as i32, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A loaded module.
pub struct Module {
    pub library: Arc<Library>,
    pub functions: Vec<usize>,
}

/// What was made in a context, with the context's handle.
pub struct Made<T>(HashMap<usize, (usize, T)>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Made<T> {
    fn remove_all(&mut self, context: usize) -> usize {
        let before = self.0.len();
        self.0.retain(|_, (owner, _)| *owner != context);
        before - self.0.len()
    }

    /// What a handle of a context stands for.
    pub fn get(&self, context: usize, handle: usize, what: &str) -> Outcome<&T> {
        match self.0.get(&handle) {
            Some((owner, made)) if *owner == context => Ok(made),
            Some(_) => fail(
                Code::InvalidContext,
                format!("{what} of another context than the current one"),
            ),
            None => fail(
                Code::InvalidHandle,
                format!("{what} {handle:#x}, which is not there or was destroyed"),
            ),
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, context: usize, handle: usize, what: &str) -> Outcome<&mut T> {
        self.get(context, handle, what)?;
        self.0
            .get_mut(&handle)
            .map_or(Err(Code::InvalidHandle), |(_, made)| Ok(made))
    }

    /// Takes it out.
    pub fn remove(&mut self, context: usize, handle: usize, what: &str) -> Outcome<T> {
        self.get(context, handle, what)?;
        self.0
            .remove(&handle)
            .map_or(Err(Code::InvalidHandle), |(_, made)| Ok(made))
    }

    fn of(&self, context: usize) -> impl Iterator<Item = &T> {
        self.0
            .values()
            .filter(move |(owner, _)| *owner == context)
            .map(|(_, made)| made)
    }
}

/// Everything there is.
#[derive(Default)]
pub struct World {
    pub initialised: bool,
    handles: usize,
    /// By device, with how often each is retained.
    contexts: HashMap<usize, (Arc<Context>, u32)>,
    pub memory: DeviceMemory,
    pub pinned: PinnedMemory,
    pub streams: Made<Arc<Stream>>,
    pub events: Made<Arc<Event>>,
    pub modules: Made<Module>,
    pub functions: Made<Arc<Function>>,
    pub graphs: Made<Arc<Vec<Work>>>,
    pub executables: Made<Arc<Vec<Work>>>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Handle of the context that is current on this thread; 0 for none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The world, for one thread at a time.
pub fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a context current on this thread, or none.
pub fn set_current(handle: usize) -> Outcome {
    let known = handle == 0
        || world()
            .contexts
            .values()
            .any(|(one, _)| one.handle == handle);
    if !known {
        return fail(
            Code::InvalidContext,
            format!("context {handle:#x} is not there or was released"),
        );
    }
    CURRENT.set(handle);
    Ok(())
}

/// Handle of the context that is current on this thread; 0 for none.
pub fn current_handle() -> usize {
    CURRENT.get()
}

/// The context that is current on this thread, if nothing has gone wrong in it.
pub fn current(what: &str) -> Outcome<Arc<Context>> {
    let handle = CURRENT.get();
    let world = world();
    let context = world
        .contexts
        .values()
        .find(|(one, _)| one.handle == handle);
    let Some((context, _)) = context else {
        return fail(
            Code::InvalidContext,
            format!("{what} on a thread without a current context"),
        );
    };
    context.error()?;
    Ok(Arc::clone(context))
}

/// Streams of the current context if something has gone wrong in it: their work is not run any more.
pub fn broken_streams() -> Vec<Arc<Stream>> {
    let handle = CURRENT.get();
    let world = world();
    let broken = |(one, _): &&(Arc<Context>, u32)| one.handle == handle && one.error().is_err();
    let context = world.contexts.values().find(broken);
    context.map_or_else(Vec::new, |(context, _)| world.streams_of(context))
}

impl World {
    /// A handle that nothing had before.
    pub fn handle(&mut self) -> usize {
        self.handles += 1;
        0x5150_0000 + 16 * self.handles
    }

    /// Puts something new of a context into a list that `which` names.
    pub fn add<T>(
        &mut self,
        context: usize,
        which: impl FnOnce(&mut Self) -> &mut Made<T>,
        made: T,
    ) -> usize {
        let handle = self.handle();
        which(self).0.insert(handle, (context, made));
        handle
    }

    /// A card's context, opened where it was not.
    pub fn retain(&mut self, device: usize) -> Outcome<usize> {
        if SETTINGS.lost() {
            return fail(
                Code::DeviceUnavailable,
                "the card is lost, as SIMULATED_CUDA_FAULT asks",
            );
        }
        if let Some((context, count)) = self.contexts.get_mut(&device) {
            context.error()?;
            *count += 1;
            return Ok(context.handle);
        }
        let handle = self.handle();
        let broken = AtomicI32::new(0);
        let context = Context {
            handle,
            device,
            broken,
        };
        self.contexts.insert(device, (Arc::new(context), 1));
        log::line(SETTINGS.cards[device], "opened");
        Ok(handle)
    }

    /// Gives a retaining back; with the last one everything in the context goes.
    pub fn release(&mut self, device: usize) -> Outcome {
        let Some((context, count)) = self.contexts.get_mut(&device) else {
            return fail(
                Code::InvalidContext,
                format!("card {device} is released and was not retained"),
            );
        };
        *count -= 1;
        if *count == 0 {
            let context = Arc::clone(context);
            self.contexts.remove(&device);
            self.close(&context);
        }
        Ok(())
    }

    fn close(&mut self, context: &Context) {
        let handle = context.handle;
        self.streams.of(handle).for_each(|stream| stream.close());
        let left = [
            ("streams", self.streams.remove_all(handle)),
            ("events", self.events.remove_all(handle)),
            ("modules", self.modules.remove_all(handle)),
            (
                "graphs",
                self.graphs.remove_all(handle) + self.executables.remove_all(handle),
            ),
            ("allocations", self.memory.free_all(handle)),
            // Which belongs to no context: it counts when there is none any more.
            (
                "pinned blocks",
                if self.contexts.is_empty() {
                    self.pinned.count()
                } else {
                    0
                },
            ),
        ];
        self.functions.remove_all(handle);
        let left: Vec<String> = left
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        let what = if left.is_empty() {
            "closed".to_owned()
        } else {
            format!("closed with {} left", left.join(", "))
        };
        log::line(SETTINGS.cards[context.device], &what);
    }

    /// Bytes a card's context has.
    pub fn used(&self, context: &Context) -> u64 {
        self.memory.used(context.handle)
    }

    /// Every stream of a context.
    pub fn streams_of(&self, context: &Context) -> Vec<Arc<Stream>> {
        self.streams.of(context.handle).cloned().collect()
    }
}
