//! Whatever bytes a client sends the embedded registry, it is answered, or its connection ended,
//! and where the network cuts the bytes makes no difference.

#![no_main]

use headcount::embedded::serve;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&every, request)) = bytes.split_first() else {
        return;
    };
    let whole = serve([request]);
    let cut = serve(request.chunks(usize::from(every).max(1)));
    assert_eq!(whole, cut);
});
