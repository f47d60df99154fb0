//! Tells the linker where the linker script is, whatever directory it runs in.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=link.ld");
    if std::env::var_os("CARGO_CFG_BAREMETAL").is_some() {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{directory}/link.ld");
    }
}
