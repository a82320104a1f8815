//! Measures training: `training_speed [BEATS] [EPOCHS] [THREADS] [DEVICE] [ONNX FILE]` trains the network of the main job, as
//! `pipelines/full.yaml` has it, on made-up beats, on `cpu` (default), `cuda` or `wgpu`, and prints beats a second of wall time and of CPU time, the loss that
//! it came to, and what a checkpoint costs in bytes and time; the model is written to the file, if one is named.
#![expect(clippy::print_stdout, reason = "a program that prints its measurement")]

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Instant;

use ecgpipe_nn::{
    Beats, Conduct, Device, Moment, NetworkConfig, Samples, Signature, TrainingConfig, WindowUse, export, train,
};

/// Features of a beat: those of `rhythm` and `morphology`.
const FEATURE_N: usize = 80;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |idx: usize, default: usize| arguments.get(idx).map_or(Ok(default), |text| text.parse());
    let (beat_n, epoch_n, thread_n) = (number(0, 100_000)?, number(1, 2)?, number(2, 1)?);
    let windows: Vec<f32> = (0..beat_n * 187).map(|idx| (idx * 7919 % 1009) as f32 / 1009.0).collect();
    let features: Vec<f32> = (0..beat_n * FEATURE_N).map(|idx| (idx * 104_729 % 997) as f32).collect();
    let labels: Vec<u8> = (0..beat_n).map(|idx| (idx % 5) as u8).collect();
    let names = (0..FEATURE_N).map(|idx| format!("feature{idx}")).collect();
    let device = arguments.get(3).map_or("cpu", String::as_str);
    let device =
        Device::ALL.into_iter().find(|known| known.name() == device).ok_or("the device is cpu, cuda or wgpu")?;
    let network = NetworkConfig {
        hidden_n: 96,
        feature_hidden_n: 128,
        fused_n: 64,
        window_use: WindowUse::WithoutFeatures,
        ..NetworkConfig::new(Signature::aami(names))
    };
    let config = TrainingConfig {
        epoch_n,
        device,
        batch_n: 512,
        learning_rate: 2e-3,
        weight_decay: 0.03,
        feature_dropout: 0.2,
        feature_mask_share: 0.2,
        feature_noise: 0.02,
        ..TrainingConfig::new(network)
    };
    let samples = Samples { beats: Beats { windows: &windows, features: Some(&features) }, labels: &labels };
    let nothing = Samples { beats: Beats { windows: &[], features: None }, labels: &[] };
    let thread_n = NonZeroUsize::new(thread_n).ok_or("at least one thread is needed")?;
    let (start, cpu_start_s) = (Instant::now(), cpu_s()?);
    let (mut checkpoint_s, mut byte_n) = (0.0, 0);
    let mut hear = |moment: Moment<'_>| {
        if let Moment::Epoch { checkpoint, .. } = moment {
            let start = Instant::now();
            byte_n = checkpoint.to_bytes().len();
            checkpoint_s += start.elapsed().as_secs_f64();
        }
        ControlFlow::Continue(())
    };
    let trained = train(&config, samples, nothing, Conduct::new(thread_n, &mut hear))?;
    let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_s()? - cpu_start_s);
    let total_n = (beat_n * epoch_n) as f64;
    println!("{} numbers in the model, {thread_n} threads, {device}", trained.model.parameter_n());
    println!("loss {:.6} in the last epoch", trained.history.last().map_or(f64::NAN, |scores| scores.training.loss));
    println!("{:.0} beats/s of wall time, {:.0} beats/s of CPU time", total_n / wall_s, total_n / cpu_s);
    let (checkpoint_ms, share) = (1e3 * checkpoint_s / epoch_n as f64, 100.0 * checkpoint_s / wall_s);
    println!("a checkpoint has {byte_n} bytes, made in {checkpoint_ms:.2} ms: {share:.3} % of an epoch");
    if let Some(path) = arguments.get(4) {
        std::fs::write(path, export(&trained.model, &BTreeMap::new())?)?;
    }
    Ok(())
}

/// CPU time of this process, user and system, in seconds (Linux counts it in hundredths).
fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = text.rsplit_once(')').ok_or("no process name")?.1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}
