//! Fork: a child serves nothing, keeps no client waiting, and ends like any other.
#![cfg(unix)]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use kastor::{Telemetry, count};
use kastor_export::Prometheus;

use crate::LONG;

#[test]
fn a_child_has_no_copy_of_the_sockets_and_drops_the_endpoint_without_waiting() {
    let tele = Telemetry::builder().build();
    let endpoint = Prometheus::builder().least_interval(Duration::ZERO).listen("127.0.0.1:0").unwrap().serve(&tele);
    let address = endpoint.address();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    let ask = |client: &mut TcpStream| {
        write!(client, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
        assert_eq!(&head, b"HTTP/1.1 200");
    };
    ask(&mut client);
    let mut told = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(told.as_mut_ptr()) }, 0);
    // SAFETY: the child does what the library promises to work there, writes one byte, waits to be ended, and never
    // returns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(endpoint);
        count!(tele, "of_child");
        // SAFETY: one byte of a live variable; then the process only waits for its end.
        unsafe {
            libc::write(told[1], (&raw const child).cast(), 1);
            libc::close(told[1]);
            libc::alarm(LONG.as_secs() as u32);
            loop {
                libc::pause();
            }
        }
    }
    assert!(child > 0);
    let mut ready = libc::pollfd { fd: told[0], events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    assert_eq!(unsafe { libc::poll(&raw mut ready, 1, LONG.as_millis() as i32) }, 1, "the child hangs");

    ask(&mut client);
    drop(endpoint);
    // The child lives on; had it a copy of either socket, these would fail.
    assert!(TcpListener::bind(address).is_ok(), "the port is free although the child lives");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "the client sees the end although the child lives");
    let mut status = 0;
    // SAFETY: our own child, by its number; a place for its status.
    unsafe {
        assert_eq!(libc::waitpid(child, &raw mut status, libc::WNOHANG), 0, "it is still there");
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
        libc::close(told[0]);
        libc::close(told[1]);
    }
}
