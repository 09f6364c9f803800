//! A context's report as HTML without scripts or a page's styles: for notebooks.

use kastor::Report;

/// What the report's `Display` prints.
pub fn report_html(report: &Report) -> String {
    let tables = report.tables();
    let mut out = String::from(if tables.is_empty() { "<p>nothing recorded</p>" } else { "" });
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
    for degraded in report.degraded() {
        out.push_str("<p>over the overhead budget: ");
        push_text(&mut out, &degraded.to_string());
        out.push_str("</p>");
    }
    out
}

/// Names to the left, figures to the right; two blanks before a name are one level.
fn push_cell(out: &mut String, tag: &str, is_name: bool, text: &str) {
    let style = if is_name { "text-align: left; white-space: pre" } else { "text-align: right" };
    out.push_str(&format!("<{tag} style=\"{style}\">"));
    push_text(out, text);
    out.push_str(&format!("</{tag}>"));
}

fn push_text(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kastor::{MockClock, Recording, Telemetry};

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

    #[test]
    fn what_is_beyond_the_overhead_budget_follows() {
        let clock = MockClock::new();
        let recording = Recording::new(1 << 16);
        let telemetry = Telemetry::builder().clock(clock.clone()).reporter(recording).overhead_budget(1e-12).build();
        (0..3).for_each(|_| drop(telemetry.scope("<hot>")));
        clock.advance(Duration::from_secs(1));
        assert!(telemetry.flush(Duration::from_secs(30)).is_complete());
        let html = report_html(&telemetry.report());
        let line = "<p>over the overhead budget: &lt;hot&gt;: aggregated only; 3 calls/s";
        assert!(html.contains("</table><p>") && html.contains(line), "{html}");
    }
}
