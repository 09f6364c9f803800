//! A scope held across an `await` would be current for whatever else the executor polls; `in_scope` is the way.

async fn wait() {}

async fn fetch() {
    let _scope = kastor::scope!("fetch");
    wait().await;
}

fn is_send<T: Send>(_: T) {}

fn main() {
    is_send(fetch());
}
