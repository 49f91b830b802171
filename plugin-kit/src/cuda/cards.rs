//! The cards that this process has open. All models on a card share its driver: opening a context and loading compiled
//! kernels takes most of a second. It is closed with the last model on it. Threads take turns.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use longhaul_plugin_api::author::Result;

use super::device::Device;
use super::driver::Driver;
use crate::precision::Precision;

/// By number and precision.
type Cards = HashMap<(u32, Precision), Weak<Driver>>;

static OPEN: LazyLock<Mutex<Cards>> = LazyLock::new(Mutex::default);

/// Card `index`, which multiplies as `LONGHAUL_PRODUCTS` says: the one that is open, or a new one where none is or the one
/// that is has failed, after which no call on it succeeds.
///
/// # Errors
/// Those of [`Driver::open`].
pub fn card(index: u32) -> Result<Arc<dyn Device>> {
    let precision = Precision::from_environment()?;
    // A panic leaves the map as it was.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (index, precision);
    let known = open.get(&key).and_then(Weak::upgrade);
    if let Some(driver) = known.filter(|driver| driver.synchronize().is_ok()) {
        return Ok(driver);
    }
    let driver = Arc::new(Driver::open_with(index, precision)?);
    open.insert(key, Arc::downgrade(&driver));
    Ok(driver)
}
