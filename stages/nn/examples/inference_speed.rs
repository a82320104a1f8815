//! Measures inference: `inference_speed ONNX_FILE [SECONDS]` prints beats a second and latencies of both engines, one
//! thread.
#![expect(clippy::print_stdout, reason = "a program that prints its measurement")]

use std::error::Error;
use std::time::Instant;

use ecgpipe_nn::{Beats, Engine, Search, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name an ONNX file")?;
    let seconds: f64 = std::env::args().nth(2).map_or(Ok(2.0), |text| text.parse())?;
    let bytes = std::fs::read(path)?;
    let found = Search { cache_folder: None, ask_python: true, offline: true }.run();
    found.notes.iter().for_each(|note| println!("{note}"));
    let engines = found.library.map(Engine::Ort).into_iter().chain([Engine::Tract]);
    for engine in engines {
        let mut session = Session::open(&bytes, &engine)?;
        let (window_n, feature_n) = (session.signature().window_n, session.signature().feature_n());
        for batch_n in [1, 256] {
            let (windows, features) = (vec![0.5; batch_n * window_n], vec![0.5; batch_n * feature_n]);
            let beats = Beats { windows: &windows, features: Some(&features) };
            let (start, mut times) = (Instant::now(), Vec::new());
            while start.elapsed().as_secs_f64() < seconds {
                let call = Instant::now();
                session.probabilities(beats)?;
                times.push(call.elapsed().as_secs_f64() * 1e6);
            }
            let total: f64 = times.iter().sum();
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            let info = session.engine();
            println!(
                "{} {}, {batch_n} at a time: {:.0} beats/s, p50 {:.0} us, p99 {:.0} us",
                info.name,
                info.version,
                (times.len() * batch_n) as f64 / total * 1e6,
                at(0.5),
                at(0.99)
            );
        }
    }
    Ok(())
}
