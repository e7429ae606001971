//! Prints the path of the vendored protoc.

fn main() {
    let path = protoc_bin_vendored::protoc_bin_path().expect("a protoc for this platform");
    println!("{}", path.display());
}
