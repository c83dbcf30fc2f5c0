//! A longer way to Redis.
//!
//! By threads that block, because the timers of an event loop count in milliseconds, and half a round trip is less.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

/// Listens for as long as this process runs; answers the port.
pub(crate) fn lengthen(host: &str, round_trip: Duration) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let server = host.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if let Err(error) = connect(&client, &server, round_trip / 2) {
                eprintln!("no connection to {server}: {error}");
            }
        }
    });
    Ok(port)
}

fn connect(client: &TcpStream, server: &str, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pass_on(client.try_clone()?, server.try_clone()?, delay);
    pass_on(server, client.try_clone()?, delay);
    Ok(())
}

/// One direction, in its order: what arrives leaves so much later.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1_024);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let chunk = (Instant::now() + delay, buffer[..read].to_vec());
            if sender.send(chunk).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, chunk) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        // Either end closes both.
        let _closed = to.shutdown(Shutdown::Both);
    });
}
