//! A program that only reports itself: what "linking it" is measured against.

mod report;

fn main() {
    report::print();
}
