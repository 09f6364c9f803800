//! StatsD lines, and the socket of an agent that they arrive at.
//!
//! At each interval, and on flush, the aggregates are sent: counters as what was added, distributions with the number of values
//! that were alike. An agent that is not there costs nothing but a count.

use std::error::Error;
use std::net::UdpSocket;
use std::time::Duration;

use kastor::{Telemetry, count, histogram, scope};
use kastor_export::Statsd;

fn main() -> Result<(), Box<dyn Error>> {
    let agent = UdpSocket::bind("127.0.0.1:0")?;
    agent.set_read_timeout(Some(Duration::from_secs(10)))?;

    let statsd = Statsd::builder().tag("service", "shop").udp(&agent.local_addr()?.to_string())?;
    let tele = Telemetry::builder().reporter(statsd.clone()).build();
    for request in 0..20_u32 {
        let _scope = scope!(tele, "request");
        count!(tele, "requests", 1, code = if request % 5 == 0 { 404 } else { 200 });
        histogram!(tele, "answer_size", 1_000 + request);
    }
    tele.shutdown(Duration::from_secs(5));

    let mut datagram = [0; 2_048];
    let bytes = agent.recv(&mut datagram)?;
    println!("{}", String::from_utf8_lossy(&datagram[..bytes]));
    println!("{} lines in all", statsd.lines().sent);
    Ok(())
}
