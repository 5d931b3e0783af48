//! Process groups of real processes. Each test starts its ranks by running itself again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ldm_libtorch::{C10d, ProcessGroup, RankEnv, Reduce, channels_last, forget_gradients, set_seed};
use tch::{Device, Kind, Tensor, nn};

/// Starts `world` processes of the test `name`, or runs `body` in one of them. All but the `lost` ones must succeed.
#[track_caller]
fn ranks(name: &str, world: usize, lost: &[usize], timeout: Duration, body: impl FnOnce(C10d)) {
    if let Some(env) = RankEnv::read().unwrap() {
        return body(C10d::connect(&env, Device::Cpu, timeout).unwrap());
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let children: Vec<Child> = (0..world)
        .map(|rank| {
            Command::new(std::env::current_exe().unwrap())
                .args([&format!("ranks::{name}"), "--exact", "--nocapture"])
                .envs([("RANK", rank.to_string()), ("WORLD_SIZE", world.to_string())])
                .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for (rank, output) in outputs.iter().enumerate() {
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), !lost.contains(&rank), "rank {rank}: {text}");
        assert!(lost.contains(&rank) || text.contains("1 passed"), "rank {rank} ran nothing: {text}");
    }
}

fn kill_this_process() -> ! {
    Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
    unreachable!("killed")
}

#[test]
fn reductions_and_broadcast() {
    ranks("reductions_and_broadcast", 3, &[], C10d::TIMEOUT, |group| {
        let rank = group.rank() as i64;
        let sums = [Tensor::from_slice(&[rank as f32, 1.]), Tensor::from_slice(&[rank * 10])];
        let largest = [Tensor::from_slice(&[rank as f32, -rank as f32])];
        let first = group.all_reduce(&sums, Reduce::Sum).unwrap();
        group.all_reduce(&largest, Reduce::Max).unwrap().wait().unwrap();
        first.wait().unwrap();
        assert_eq!(sums, [Tensor::from_slice(&[3f32, 3.]), Tensor::from_slice(&[30i64])]);
        assert_eq!(largest, [Tensor::from_slice(&[2f32, 0.])]);
        let word = Tensor::from_slice(&[rank]);
        group.broadcast(&word, 2).unwrap().wait().unwrap();
        assert_eq!(word, Tensor::from_slice(&[2i64]));
        group.count("seen", 1).unwrap();
        while group.count("seen", 0).unwrap() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A model with difficult parameters: convolutions in channels_last, a weight used twice, one that only rank 1 uses, and
/// one that no rank uses.
struct Net {
    vs: nn::VarStore,
    first: Tensor,
    shared: Tensor,
    second: Tensor,
    sometimes: Tensor,
}

impl Net {
    fn new() -> Self {
        set_seed(3);
        let vs = nn::VarStore::new(Device::Cpu);
        let root = vs.root();
        let first = root.kaiming_uniform("first", &[8, 3, 3, 3]);
        let shared = root.kaiming_uniform("shared", &[8, 8, 3, 3]);
        let second = root.kaiming_uniform("second", &[1, 8, 3, 3]);
        let sometimes = root.ones("sometimes", &[5]);
        let _never = root.ones("never", &[7]);
        channels_last(&vs);
        Self { vs, first, shared, second, sometimes }
    }

    fn params(&self) -> Vec<Tensor> {
        let mut named: Vec<_> = self.vs.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named.into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// The pass of a micro-batch; `sometimes` is used before the fourth.
    fn backward(&self, rank: usize, micro: i64) {
        let x = (Tensor::arange(2 * 3 * 8 * 8, (Kind::Float, Device::Cpu))
            * (0.01 + rank as f64 + micro as f64))
            .sin()
            .view([2, 3, 8, 8]);
        let conv = |x: &Tensor, weight: &Tensor| x.conv2d::<Tensor>(weight, None, 1, 1, 1, 1).tanh();
        let y = conv(&conv(&conv(&conv(&x, &self.first), &self.shared), &self.shared), &self.second);
        let mut loss = y.square().mean(Kind::Float);
        if rank == 1 && micro < 4 {
            loss += self.sometimes.square().sum(Kind::Float);
        }
        loss.backward();
    }
}

#[test]
fn bucketed_gradients_equal_a_plain_reduction() {
    ranks("bucketed_gradients_equal_a_plain_reduction", 3, &[], C10d::TIMEOUT, |group| {
        let group = group.with_bucket_bytes(1000);
        let (plain, bucketed) = (Net::new(), Net::new());
        let reducer = group.reducer(&bucketed.params()).unwrap();
        for step in 0..4 {
            forget_gradients(&plain.params());
            reducer.clear();
            for net in [&plain, &bucketed] {
                net.backward(group.rank(), 2 * step);
                if std::ptr::eq(net, &raw const bucketed) {
                    reducer.arm();
                }
                net.backward(group.rank(), 2 * step + 1);
            }
            let overlap = reducer.finish().unwrap();
            assert!(overlap.buckets >= 3, "{overlap:?}");
            // The first pass records the order. `sometimes` and `never` come last, and never in buckets of their own.
            let expected = if step == 0 { 0..=0 } else { 1..=overlap.buckets - 1 };
            assert!(expected.contains(&overlap.early), "{overlap:?}");
            for (mine, bucketed) in plain.params().iter().zip(bucketed.params()) {
                if bucketed.size() == [7] || (bucketed.size() == [5] && step >= 2) {
                    assert!(!bucketed.grad().defined(), "an unexpected gradient in step {step}");
                    continue;
                }
                let grad = mine.grad();
                let grad = if grad.defined() { grad.copy() } else { mine.zeros_like().detach() };
                group.all_reduce(&[grad.shallow_clone()], Reduce::Sum).unwrap().wait().unwrap();
                let difference = (grad / 3. - bucketed.grad()).abs().max().double_value(&[]);
                assert!(difference < 1e-7, "{:?} differs by {difference}", mine.size());
                assert!(bucketed.grad().abs().max().double_value(&[]) > 0.);
            }
        }
        // Its hooks are removed with it: a rank may then run backward alone.
        drop(reducer);
        if group.rank() == 0 {
            bucketed.backward(0, 0);
        }
    });
}

/// A gradient that a rank has from the first of two passes alone.
#[test]
fn a_gradient_of_an_earlier_pass_is_averaged() {
    ranks("a_gradient_of_an_earlier_pass_is_averaged", 2, &[], C10d::TIMEOUT, |group| {
        let vs = nn::VarStore::new(Device::Cpu);
        let [both, early] = ["both", "early"].map(|name| vs.root().ones(name, &[2]));
        let reducer = group.reducer(&[both.shallow_clone(), early.shallow_clone()]).unwrap();
        for _ in 0..3 {
            reducer.clear();
            if group.rank() == 0 {
                (both.sum(Kind::Float) + early.sum(Kind::Float) * 4.).backward();
            }
            reducer.arm();
            (both.sum(Kind::Float) * 2.).backward();
            reducer.finish().unwrap();
            assert_eq!(both.grad(), Tensor::from_slice(&[2.5_f32, 2.5]));
            assert_eq!(early.grad(), Tensor::from_slice(&[2_f32, 2.]));
        }
    });
}

#[test]
fn a_closed_group_refuses_operations() {
    ranks("a_closed_group_refuses_operations", 2, &[], C10d::TIMEOUT, |group| {
        let value = [Tensor::ones([10], (Kind::Float, Device::Cpu))];
        group.all_reduce(&value, Reduce::Sum).unwrap().wait().unwrap();
        group.close().unwrap();
        group.close().unwrap(); // it is closed already
        let error = group.all_reduce(&value, Reduce::Sum).unwrap_err().to_string();
        assert!(error.ends_with("the process group is closed"), "{error}");
    });
}

#[test]
fn a_killed_rank_ends_the_others() {
    ranks("a_killed_rank_ends_the_others", 3, &[1], C10d::TIMEOUT, |group| {
        let value = [Tensor::ones([1000], (Kind::Float, Device::Cpu))];
        group.all_reduce(&value, Reduce::Sum).unwrap().wait().unwrap();
        if group.rank() == 1 {
            kill_this_process();
        }
        let start = Instant::now();
        let error =
            group.all_reduce(&value, Reduce::Sum).and_then(ldm_libtorch::CollectiveWork::wait).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20), "{error} after {:?}", start.elapsed());
        let text = error.to_string();
        let head = format!("rank {} of 3: another rank has ended or does not answer: ", group.rank());
        assert!(text.starts_with(&head) && !text.contains(['\n', '/']), "{text}");
    });
}

#[test]
fn a_rank_lost_during_backward_is_reported_at_its_end() {
    let name = "a_rank_lost_during_backward_is_reported_at_its_end";
    ranks(name, 2, &[1], C10d::TIMEOUT, |group| {
        let group = group.with_bucket_bytes(1000);
        let net = Net::new();
        let reducer = group.reducer(&net.params()).unwrap();
        reducer.arm();
        net.backward(0, 0);
        reducer.finish().unwrap();
        reducer.arm();
        if group.rank() == 1 {
            kill_this_process();
        }
        net.backward(0, 1);
        let error = reducer.finish().unwrap_err().to_string();
        assert!(error.starts_with("rank 0 of 2: another rank has ended"), "{error}");
    });
}

#[test]
fn a_rank_that_does_not_answer_times_out() {
    let name = "a_rank_that_does_not_answer_times_out";
    ranks(name, 2, &[], Duration::from_secs(3), |group| {
        if group.rank() == 1 {
            std::thread::sleep(Duration::from_secs(5));
            return;
        }
        let value = Tensor::ones([10], (Kind::Float, Device::Cpu));
        let error =
            group.broadcast(&value, 1).and_then(ldm_libtorch::CollectiveWork::wait).unwrap_err().to_string();
        assert!(error.contains("does not answer") && error.contains("3000ms"), "{error}");
    });
}

#[test]
fn connecting_without_other_ranks_times_out() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let env = RankEnv {
        rank: 0,
        world: 2,
        local_rank: 0,
        host: c"127.0.0.1".into(),
        port,
        launcher_serves: false,
        listen_fd: None,
    };
    let start = Instant::now();
    let error = C10d::connect(&env, Device::Cpu, Duration::from_secs(2)).unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let head = format!("rank 0 of 2: expected the other ranks at 127.0.0.1:{port} within 2 s: ");
    assert!(error.starts_with(&head) && !error.contains('\n'), "{error}");
}
