//! Uploads of the kit's CUDA driver on the simulated one, which aborts a program that changes page-locked memory
//! before a copy out of it was made.

use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::cuda::driver::Driver;
use longhaul_tests::card;

/// Bytes that tell an upload from the others.
fn content(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at * 7 + at / 251 + number * 31) as u8)
        .collect()
}

#[test]
fn uploads_arrive_whole_whatever_comes_after_them() {
    // Each copy is made long after the call.
    let variables = [("SIMULATED_CUDA_DELAY", "2000")];
    if !card::is_here("uploads_arrive_whole_whatever_comes_after_them", &variables) {
        return;
    }
    let card = Driver::open(0).expect("a card");
    // Small ones in a row, ever larger ones, none at all, one that is too large to be copied aside, small ones.
    let mut sizes = vec![16; 20];
    sizes.extend([100, 5000, 4097, 0, 1 << 20, (8 << 20) + 5, 3, 1 << 20, 8]);
    let mut places = Vec::new();
    for (number, &bytes) in sizes.iter().enumerate() {
        let place = card.allocate(bytes.max(1)).expect("memory");
        // The caller's bytes are gone when the call returns.
        let upload = card.upload(place, &content(number, bytes));
        upload.expect("an upload");
        places.push(place);
    }
    for (number, (&bytes, &place)) in sizes.iter().zip(&places).enumerate() {
        let mut got = vec![0; bytes];
        if bytes > 0 {
            card.download(place, &mut got).expect("a download");
        }
        assert!(got == content(number, bytes), "upload {number} of {bytes}");
        card.free(place);
    }
}

/// The last copies are under way when the driver goes.
#[test]
fn what_uploads_go_through_is_given_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let variables = [
        ("SIMULATED_CUDA_DELAY", "20000"),
        ("SIMULATED_CUDA_LOG", &*log.to_string_lossy()),
    ];
    if !card::is_here("what_uploads_go_through_is_given_back", &variables) {
        let log = std::fs::read_to_string(&log).expect("a context was opened");
        assert!(log.trim_end().ends_with("closed"), "{log}");
        return;
    }
    let card = Driver::open(0).expect("a card");
    let place = card.allocate(64).expect("memory");
    for number in 0..2 {
        let upload = card.upload(place, &content(number, 64));
        upload.expect("an upload");
    }
    card.free(place);
    let place = card.allocate(4096).expect("memory");
    // These take the place of smaller buffers.
    for number in 0..3 {
        let upload = card.upload(place, &content(number, 4096));
        upload.expect("an upload");
    }
    card.free(place);
}
