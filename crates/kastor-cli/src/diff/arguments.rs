//! The arguments of `kastor diff`.

use std::path::PathBuf;

use clap::Args;

/// A change below this is none, where nothing else is asked for.
pub(crate) const THRESHOLD: f64 = 0.05;

/// The arguments of `kastor diff`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Compares two sets of captures path by path and says what became slower or faster, beyond what noise explains. \
                  With --fail-over it is a gate: exit code 1 if a call of some path takes so much longer.",
    after_help = "Examples:\n  kastor diff before after                  two folders, or two files\n  \
                  kastor diff before after --fail-over 10%  for continuous integration\n  \
                  kastor diff before after --markdown       for the comment on a pull request"
)]
pub(crate) struct DiffArguments {
    /// A capture (.kcap), or a folder with some: how it was
    #[arg(value_name = "BASE")]
    pub(crate) base: PathBuf,
    /// The same: how it is
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Exit with 1 if a call of some path takes longer by this much, beyond noise
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) fail_over: Option<f64>,
    /// Only paths that fit: `*` stands for any text, `?` for one character
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Option<String>,
    /// Paths to show at most, beside those that became slower; 0: all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// Write one JSON document with the same content
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,
    /// Write Markdown, the same for the same captures
    #[arg(long)]
    pub(crate) markdown: bool,
}

impl DiffArguments {
    /// The least change that counts.
    pub(crate) fn threshold(&self) -> f64 {
        self.fail_over.unwrap_or(THRESHOLD)
    }
}

/// `10%`, `10 %` or `10` as 0.1.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if percent.is_finite() && percent > 0.0 => Ok(percent / 100.0),
        _ => Err("no percentage above zero, such as 10%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages_are_read_with_and_without_their_sign() {
        assert_eq!(["10%", "2.5 %", "50"].map(percent), [Ok(0.1), Ok(0.025), Ok(0.5)]);
        assert!(["", "%", "0", "-5%", "ten", "nan", "inf"].iter().all(|text| percent(text).is_err()));
    }
}
