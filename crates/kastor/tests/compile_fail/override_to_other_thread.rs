//! An override of the current context is one thread's.

fn main() {
    let guard = kastor::Telemetry::disabled().override_current();
    std::thread::spawn(move || drop(guard));
}
