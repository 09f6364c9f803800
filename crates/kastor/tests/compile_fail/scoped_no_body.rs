//! A method that a trait only declares has nothing to cover.

trait Parse {
    #[kastor::scoped]
    fn parse(&self) -> u32;
}

fn main() {}
