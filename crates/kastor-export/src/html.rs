//! A context's report as HTML without scripts or a page's styles: for notebooks.

use kastor::Report;

/// The tables that the report's `Display` prints.
pub fn report_html(report: &Report) -> String {
    let tables = report.tables();
    if tables.is_empty() {
        return "<p>nothing recorded</p>".to_owned();
    }
    let mut out = String::new();
    for table in &tables {
        out.push_str("<table>");
        for (at, row) in table.iter().enumerate() {
            let (open, close, tag) = match at {
                0 => ("<thead>", "</thead><tbody>", "th"),
                _ => ("", "", "td"),
            };
            out.push_str(&format!("{open}<tr>"));
            row.iter().enumerate().for_each(|(column, cell)| push_cell(&mut out, tag, column == 0, cell));
            out.push_str(&format!("</tr>{close}"));
        }
        out.push_str("</tbody></table>");
    }
    out
}

/// Names to the left, figures to the right; two blanks before a name are one level.
fn push_cell(out: &mut String, tag: &str, is_name: bool, text: &str) {
    let style = if is_name { "text-align: left; white-space: pre" } else { "text-align: right" };
    out.push_str(&format!("<{tag} style=\"{style}\">"));
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out.push_str(&format!("</{tag}>"));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kastor::{MockClock, Telemetry};

    use super::report_html;

    #[test]
    fn a_report_is_one_table_for_scopes_and_one_for_metrics() {
        let clock = MockClock::new();
        let telemetry = Telemetry::builder().clock(clock.clone()).build();
        assert_eq!(report_html(&telemetry.report()), "<p>nothing recorded</p>");
        let outer = telemetry.scope("a");
        let inner = telemetry.scope("<b>");
        clock.advance(Duration::from_millis(2));
        drop((inner, outer));
        telemetry.counter("rows", &[]).add(3);
        let html = report_html(&telemetry.report());
        assert_eq!((html.matches("<table><thead><tr><th").count(), html.matches("</tbody></table>").count()), (2, 2));
        assert!(html.contains("<td style=\"text-align: left; white-space: pre\">  &lt;b&gt;</td>"), "{html}");
        assert!(html.contains("<td style=\"text-align: right\">2.00 ms</td>"), "{html}");
        assert!(html.contains("<td style=\"text-align: right\">counter</td>"), "{html}");
    }
}
