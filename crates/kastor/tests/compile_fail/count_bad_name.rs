//! A literal metric name is checked by the compiler, by the rule for scopes.

fn main() {
    kastor::count!("Items");
    kastor::gauge!("queue depth", 1.0);
    kastor::histogram!("size-bytes", 512);
    kastor::metric!(".note", 1.5);
}
