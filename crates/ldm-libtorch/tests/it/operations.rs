//! Operation counts, compared with counts by hand.

use ldm_libtorch::{Operation, count_operations, to_channels_last};
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

#[track_caller]
fn one<'a>(seen: &'a [Operation], name: &str) -> &'a Operation {
    seen.iter().find(|each| each.name == name).unwrap_or_else(|| panic!("{name} in {seen:?}"))
}

fn flop(seen: &[Operation]) -> i64 {
    seen.iter().map(|each| each.flop).sum()
}

#[test]
fn products_convolutions_and_attention_are_counted_once() {
    let (a, b) = (Tensor::ones([3, 4, 5], F32), Tensor::ones([5, 7], F32));
    let (_, seen) = count_operations(|| a.matmul(&b)); // which calls reshape, mm, …
    assert_eq!((seen.len(), one(&seen, "aten::matmul").calls), (1, 1), "{seen:?}");
    assert_eq!(flop(&seen), 2 * 3 * 4 * 5 * 7);
    assert_eq!(seen[0].bytes, 4 * (60 + 35 + 84));

    let (x, weight) = (Tensor::ones([2, 6, 9, 8], F32), Tensor::ones([4, 3, 3, 3], F32));
    for x in [x.shallow_clone(), to_channels_last(&x)] {
        let (y, seen) = count_operations(|| x.conv2d(&weight, None::<Tensor>, [2, 2], [1, 1], [1, 1], 2));
        assert_eq!(y.size(), [2, 4, 5, 4]);
        assert_eq!(flop(&seen), 2 * (2 * 4 * 5 * 4) * (3 * 3 * 3), "{seen:?}");
    }
    // Transposed, each input value is multiplied with a whole row.
    let weight = Tensor::ones([6, 2, 3, 3], F32);
    let (_, seen) =
        count_operations(|| x.conv_transpose2d(&weight, None::<Tensor>, [2, 2], [1, 1], [0, 0], 1, [1, 1]));
    assert_eq!(flop(&seen), 2 * (2 * 6 * 9 * 8) * (2 * 3 * 3), "{seen:?}");

    let [q, k] = [10, 6].map(|length| Tensor::ones([2, 3, length, 8], F32));
    let (_, seen) = count_operations(|| {
        Tensor::scaled_dot_product_attention(&q, &k, &k, None::<Tensor>, 0., false, None, false)
    });
    assert_eq!((seen.len(), flop(&seen)), (1, 2 * 2 * 2 * 3 * 10 * 6 * 8), "{seen:?}");
}

#[test]
fn a_backward_pass_is_counted_too() {
    let x = Tensor::ones([2, 6, 9, 8], F32).set_requires_grad(true);
    let weight = Tensor::ones([4, 6, 3, 3], F32).set_requires_grad(true);
    let forward = 2 * (2 * 4 * 9 * 8) * (6 * 3 * 3);
    for (x, weight, passes) in [(&x, &weight, 3), (&x.detach(), &weight, 2), (&x, &weight.detach(), 2)] {
        let ((), seen) = count_operations(|| {
            x.conv2d(weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1).sum(Kind::Float).backward();
        });
        assert_eq!(flop(&seen), passes * forward, "{seen:?}");
        assert!(one(&seen, "aten::convolution_backward").bytes > 0, "{seen:?}");
    }
    // Attention's backward is two and a half times its forward: it recomputes the weights.
    let [q, k] = [10, 6].map(|length| Tensor::ones([2, 3, length, 8], F32).set_requires_grad(true));
    let ((), seen) = count_operations(|| {
        Tensor::scaled_dot_product_attention(&q, &k, &k, None::<Tensor>, 0., false, None, false)
            .sum(Kind::Float)
            .backward();
    });
    assert_eq!(2 * flop(&seen), 7 * 2 * 2 * (2 * 3 * 10 * 6 * 8), "{seen:?}");
}

#[test]
fn views_move_nothing_and_in_place_operations_write() {
    let mut x = Tensor::ones([4, 8], F32);
    let (_, seen) = count_operations(|| x.transpose(0, 1).view([2, 4, 4]).contiguous());
    assert_eq!(one(&seen, "aten::transpose").bytes + one(&seen, "aten::view").bytes, 0);
    assert_eq!(one(&seen, "aten::contiguous").bytes, 2 * 4 * 32, "a copy");
    let (_, seen) = count_operations(|| x.to_kind(Kind::Float));
    assert_eq!((seen[0].name.as_str(), seen[0].bytes), ("aten::to", 0), "itself");
    let (_, seen) = count_operations(|| x.relu_());
    assert_eq!((seen[0].name.as_str(), seen[0].bytes, seen[0].flop), ("aten::relu_", 2 * 4 * 32, 0));
    // One row in memory, expanded to 1000.
    let wide = x.narrow(0, 0, 1).expand([1000, 8], false);
    let (_, seen) = count_operations(|| wide.sum(Kind::Float));
    assert_eq!(seen[0].bytes, 4 * 32 + 4);
}

#[test]
fn a_count_ends_with_its_body() {
    let x = Tensor::ones([4], F32);
    let failed = std::panic::catch_unwind(|| {
        count_operations(|| {
            let _ = Tensor::ones([4], F32).exp();
            panic!("on purpose");
        })
    });
    assert!(failed.is_err());
    let _ = x.exp();
    let ((), seen) = count_operations(|| {
        let _ = (x.cos(), x.cos());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = Tensor::ones([4], F32).sin();
            });
        });
    });
    assert_eq!(
        (seen.len(), one(&seen, "aten::cos").calls),
        (1, 2),
        "operations of another thread are not counted: {seen:?}"
    );
    assert!(seen[0].seconds > 0.);
}
