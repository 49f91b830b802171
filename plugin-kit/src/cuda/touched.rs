//! Which columns of a gradient hold values in a pass. What nothing has written yet is written by the first who comes, and
//! only what somebody reads without that is filled with zeros.

use std::cell::RefCell;

/// Columns of one buffer that were written in this pass.
#[derive(Default)]
pub struct Columns(RefCell<Vec<bool>>);

impl Columns {
    /// Forgets them: a pass begins.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Counts `cols` columns from `start` on as written; the gaps among them that were not, as first column and number.
    pub fn touch(&self, start: usize, cols: usize) -> Vec<(usize, usize)> {
        let mut written = self.0.borrow_mut();
        if written.len() < start + cols {
            written.resize(start + cols, false);
        }
        let mut gaps: Vec<(usize, usize)> = Vec::new();
        for (column, written) in (start..).zip(&mut written[start..start + cols]) {
            if std::mem::replace(written, true) {
                continue;
            }
            match gaps.last_mut() {
                Some((first, count)) if *first + *count == column => *count += 1,
                _ => gaps.push((column, 1)),
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;

    #[test]
    fn columns_are_untouched_once() {
        let columns = Columns::default();
        assert_eq!(columns.touch(4, 4), [(4, 4)]);
        assert_eq!(columns.touch(4, 4), []);
        assert_eq!(columns.touch(2, 8), [(2, 2), (8, 2)]);
        assert_eq!(columns.touch(0, 3), [(0, 2)]);
        columns.clear();
        assert_eq!(columns.touch(0, 3), [(0, 3)]);
    }
}
