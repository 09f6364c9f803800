//! `kastor demo --prometheus ADDR`: the run that was shown, at an endpoint to scrape.

use kastor::Telemetry;
use kastor_export::Prometheus;

use crate::failure::Failure;
use crate::output::Output;

/// Takes the address; until there is something to serve, scrapes are told so.
pub(super) fn listen(address: &str) -> Result<Prometheus, Failure> {
    let endpoint = Prometheus::builder().listen(address);
    endpoint.map_err(|error| Failure::new(error.to_string(), "`--prometheus 9464` listens on loopback"))
}

/// Serves until the command is interrupted.
pub(super) fn serve(endpoint: Prometheus, telemetry: &Telemetry, output: &mut Output) -> ! {
    let endpoint = endpoint.serve(telemetry);
    output.flush();
    eprintln!("kastor: serving http://{}/metrics until interrupted", endpoint.address());
    loop {
        std::thread::park();
    }
}
