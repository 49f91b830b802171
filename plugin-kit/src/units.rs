//! Independent units of work over buffers that are cut into one piece a unit: a row, a head, a tile.
//! On a thread of a pool they run in parallel, on any other thread in order; the cuts are the same, and
//! so are the results.

/// Multiply-adds, or values written, that are worth handing to another thread.
const WORTH_A_THREAD: usize = 1 << 15;

/// A buffer cut into pieces; [`cut`] makes it.
pub struct Cut<'a, T = f32> {
    data: &'a mut [T],
    size: usize,
}

/// Cuts `data` into pieces of `size`; the last may be shorter. A buffer with fewer pieces than there are
/// units gives the others an empty one.
pub fn cut<T>(data: &mut [T], size: usize) -> Cut<'_, T> {
    Cut { data, size }
}

/// One or several cut buffers: a [`Cut`], or a tuple of up to eight of them.
pub trait Cuts: Send + Sized {
    /// What a unit gets: its piece of every buffer.
    type Unit;

    /// Pieces of the first buffer, which are the units.
    fn count(&self) -> usize;

    /// The first `units` pieces of every buffer, and the others.
    fn split(self, units: usize) -> (Self, Self);

    /// The first piece of every buffer.
    fn unit(self) -> Self::Unit;
}

impl<'a, T: Send> Cuts for Cut<'a, T> {
    type Unit = &'a mut [T];

    fn count(&self) -> usize {
        self.data.len().div_ceil(self.size.max(1))
    }

    fn split(self, units: usize) -> (Self, Self) {
        let at = (units * self.size).min(self.data.len());
        let (head, tail) = self.data.split_at_mut(at);
        (cut(head, self.size), cut(tail, self.size))
    }

    fn unit(self) -> Self::Unit {
        let end = self.size.min(self.data.len());
        &mut self.data[..end]
    }
}

macro_rules! tuple_of_cuts {
    (@cut $index:tt) => { Cut<'a> };
    (@unit $index:tt) => { &'a mut [f32] };
    ($($index:tt)*) => {
        impl<'a> Cuts for ($(tuple_of_cuts!(@cut $index)),*) {
            type Unit = ($(tuple_of_cuts!(@unit $index)),*);

            fn count(&self) -> usize {
                self.0.count()
            }

            fn split(self, units: usize) -> (Self, Self) {
                let parts = ($(self.$index.split(units)),*);
                (($(parts.$index.0),*), ($(parts.$index.1),*))
            }

            fn unit(self) -> Self::Unit {
                ($(self.$index.unit()),*)
            }
        }
    };
}

tuple_of_cuts!(0 1);
tuple_of_cuts!(0 1 2);
tuple_of_cuts!(0 1 2 3);
tuple_of_cuts!(0 1 2 3 4);
tuple_of_cuts!(0 1 2 3 4 5);
tuple_of_cuts!(0 1 2 3 4 5 6);
tuple_of_cuts!(0 1 2 3 4 5 6 7);

/// Calls `work(unit, pieces)` once for every unit. `cost` is a unit's work, in multiply-adds: small units
/// go to a thread several at a time.
pub fn for_each_unit<C: Cuts>(cost: usize, cuts: C, work: impl Fn(usize, C::Unit) + Sync) {
    let least = if rayon::current_thread_index().is_some() {
        WORTH_A_THREAD.div_ceil(cost.max(1))
    } else {
        usize::MAX
    };
    share(least, 0, cuts, &work);
}

fn share<C: Cuts>(least: usize, first: usize, cuts: C, work: &(impl Fn(usize, C::Unit) + Sync)) {
    let count = cuts.count();
    if count > 1 && count / 2 >= least {
        let (head, tail) = cuts.split(count / 2);
        rayon::join(
            || share(least, first, head, work),
            || share(least, first + count / 2, tail, work),
        );
        return;
    }
    let mut rest = cuts;
    for unit in first..first + count {
        let (pieces, others) = rest.split(1);
        work(unit, pieces.unit());
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(threads: Option<usize>) -> (Vec<f32>, Vec<f32>) {
        let (mut a, mut b) = (vec![0.0; 103], vec![0.0; 26]);
        let mut run = || {
            for_each_unit(1 << 20, (cut(&mut a, 4), cut(&mut b, 1)), |unit, (a, b)| {
                assert_eq!((a.len(), b.len()), (if unit == 25 { 3 } else { 4 }, 1));
                a.fill(unit as f32);
                b[0] = -(unit as f32);
            });
        };
        match threads {
            None => run(),
            Some(threads) => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                pool.build().expect("a pool").install(run);
            }
        }
        (a, b)
    }

    #[test]
    fn every_unit_gets_its_pieces_once_on_any_number_of_threads() {
        let (a, b) = stamp(None);
        assert!(a.iter().enumerate().all(|(i, &a)| a == (i / 4) as f32));
        assert!(b.iter().enumerate().all(|(i, &b)| b == -(i as f32)));
        assert_eq!(stamp(Some(1)), (a.clone(), b.clone()));
        assert_eq!(stamp(Some(3)), (a, b));
    }

    #[test]
    fn a_buffer_that_is_not_needed_may_be_empty() {
        let mut a = vec![0.0; 6];
        for_each_unit(1, (cut(&mut a, 2), cut(&mut [], 8)), |_, (a, b)| {
            assert!(b.is_empty());
            a.fill(1.0);
        });
        assert_eq!(a, [1.0; 6]);
    }
}
