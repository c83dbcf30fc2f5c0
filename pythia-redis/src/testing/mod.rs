//! A real redis-server for tests: started on a free port, in a folder of its own, gone when the handle is dropped.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use pythia_redis::testing::RedisServer;
//!
//! let server = RedisServer::start().await;
//! server.cli(&["LPUSH", "orders", r#"{"id": 1}"#]).await;
//! assert_eq!(server.cli(&["LLEN", "orders"]).await, "1");
//! println!("{}", server.url()); // redis://127.0.0.1:41873
//! # }
//! ```
//!
//! Everything here panics with a clear text when it can't do its work: a test has no use for an error.

mod server;

pub use server::RedisServer;
