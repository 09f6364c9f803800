//! A carrier travels; what `attach` returns stays.

fn main() {
    let attached = kastor::Carrier::current().attach();
    std::thread::spawn(move || drop(attached));
}
