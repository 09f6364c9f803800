//! The attribute goes on functions alone.

#[kastor::scoped]
pub struct Parser;

#[kastor::scoped]
impl Parser {}

#[kastor::scoped("limit")]
const LIMIT: u32 = 1;

fn main() {}
