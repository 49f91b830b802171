//! The cards that this process has opened. All models on a card share its driver: opening a context and loading
//! compiled kernels takes most of a second, and a check makes many models one after the other. Threads take turns.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use longhaul_plugin_api::author::Result;

use super::device::Device;
use super::driver::Driver;
use super::precision::Precision;

/// By number and precision.
type Cards = HashMap<(u32, Precision), Arc<Driver>>;

static OPENED: LazyLock<Mutex<Cards>> = LazyLock::new(Mutex::default);

/// Card `index`, which multiplies as `LONGHAUL_PRODUCTS` says; opened once, and again where what was opened has failed,
/// after which no call on it succeeds.
///
/// # Errors
/// Those of [`Driver::open`].
pub fn card(index: u32) -> Result<Arc<dyn Device>> {
    let precision = Precision::from_environment()?;
    // A panic leaves the map as it was.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (index, precision);
    // One that has failed is let go of first, so that its context is closed if no model has it any more.
    opened.retain(|of, driver| *of != key || driver.synchronize().is_ok());
    if let Some(driver) = opened.get(&key) {
        return Ok(Arc::clone(driver) as Arc<dyn Device>);
    }
    let driver = Arc::new(Driver::open_with(index, precision)?);
    opened.insert(key, Arc::clone(&driver));
    Ok(driver)
}
