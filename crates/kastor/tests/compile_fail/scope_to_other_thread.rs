//! A scope belongs to the thread that opened it; a carrier is what goes to another one.

fn main() {
    let scope = kastor::scope!("parse");
    std::thread::spawn(move || drop(scope));
}
