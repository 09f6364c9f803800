//! A name that is no scope name is refused, whether it was given or is the function's own.

#[kastor::scoped("Db.Query")]
fn given() {}

#[kastor::scoped("db query")]
async fn spaced() {}

#[kastor::scoped]
fn r#type() {}

#[kastor::scoped]
#[allow(non_snake_case)]
fn Parse() {}

#[kastor::scoped]
fn _helper() {}

fn main() {
    given();
    drop(spaced());
    r#type();
    Parse();
    _helper();
}
