//! The empty program with kastor linked in and called, but never configured. It must start as the empty one does.

mod report;

fn main() {
    report::print();
    // After the report, so that nothing but linking is measured; the calls keep the linker from leaving kastor out.
    let _scope = kastor::scope!("probe", at = std::process::id());
    kastor::count!("probes");
}
