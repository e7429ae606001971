//! The bodies of the fuzz targets in `tests/fuzz`, each a function of any bytes that panics where
//! something is wrong. Ordinary tests replay every input that is kept there.

mod frames;
mod member;
mod plain;
mod replies;

pub use frames::frames;
pub use member::member;
pub use replies::replies;

/// Whatever bytes a client sends the embedded registry, it is answered, or its connection ended,
/// and where the network cuts the bytes makes no difference. The first byte is the length of the
/// pieces.
#[cfg(feature = "embedded")]
pub fn registry(input: &[u8]) {
    use crate::embedded::serve;

    let Some((&every, request)) = input.split_first() else {
        return;
    };
    let whole = serve([request]);
    let cut = serve(request.chunks(usize::from(every).max(1)));
    assert_eq!(whole, cut);
}

#[cfg(test)]
mod tests;
