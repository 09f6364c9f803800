//! Says which Python this is built for: `Py_3_14`, `Py_GIL_DISABLED` and the like; and `free_threaded` for what works without the
//! global lock.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo::rustc-check-cfg=cfg(free_threaded)");
    println!("cargo::rerun-if-env-changed={FORCED}");
    if pyo3_build_config::get().is_free_threaded() || std::env::var_os(FORCED).is_some() {
        println!("cargo::rustc-cfg=free_threaded");
    }
}

/// Compiles what works without the lock for an interpreter that has it, so that it can be tested there.
const FORCED: &str = "KASTOR_BUILD_FREE_THREADED";
