//! Small finite groups as tables of products: permutations, even permutations, residues, and pairs of these.

use std::collections::BTreeMap;

/// A finite group; its first element is the identity.
#[derive(Debug, Clone)]
pub struct Group {
    /// A readable name of each element.
    names: Vec<String>,
    /// The product of a and b, a first, at `a * order + b`.
    products: Vec<u16>,
}

impl Group {
    /// All permutations of so many points, or all even ones, in lexicographic order.
    pub fn permutations(points: u8, even_only: bool) -> Self {
        let mut all = vec![Vec::new()];
        for _ in 0..points {
            let longer = |some: &Vec<u8>| -> Vec<Vec<u8>> {
                let rest = (0..points).filter(|point| !some.contains(point));
                rest.map(|point| [some.as_slice(), &[point]].concat())
                    .collect()
            };
            all = all.iter().flat_map(longer).collect();
        }
        all.retain(|permutation| !even_only || is_even(permutation));
        let places: BTreeMap<&Vec<u8>, u16> = all.iter().zip(0..).collect();
        let product = |a: &Vec<u8>, b: &Vec<u8>| {
            let after: Vec<u8> = a.iter().map(|&point| b[usize::from(point)]).collect();
            places[&after]
        };
        let products = all
            .iter()
            .flat_map(|a| all.iter().map(move |b| (a, b)))
            .map(|(a, b)| product(a, b))
            .collect();
        Self {
            names: all.iter().map(|permutation| cycles(permutation)).collect(),
            products,
        }
    }

    /// Residues under addition.
    pub fn cyclic(order: u16) -> Self {
        let sums = (0..order).flat_map(|a| (0..order).map(move |b| (a + b) % order));
        Self {
            names: (0..order).map(|residue| residue.to_string()).collect(),
            products: sums.collect(),
        }
    }

    /// Pairs of elements of two groups.
    pub fn pairs(left: &Self, right: &Self) -> Self {
        let pair = |element: usize| (element / right.order(), element % right.order());
        let order = left.order() * right.order();
        let product = |(a, b): (usize, usize)| {
            let ((a_left, a_right), (b_left, b_right)) = (pair(a), pair(b));
            let (left, by) = (left.product(a_left, b_left), right.order());
            (left * by + right.product(a_right, b_right)) as u16
        };
        let name = |element: usize| {
            let (l, r) = pair(element);
            format!("{}+{}", left.names[l], right.names[r])
        };
        Self {
            names: (0..order).map(name).collect(),
            products: (0..order * order)
                .map(|place| product((place / order, place % order)))
                .collect(),
        }
    }

    /// Number of elements.
    pub fn order(&self) -> usize {
        self.names.len()
    }

    /// The product of two elements, the left one first.
    pub fn product(&self, left: usize, right: usize) -> usize {
        usize::from(self.products[left * self.order() + right])
    }

    /// A readable name of an element: cycles of a permutation, a residue, both of a pair.
    pub fn name(&self, element: usize) -> &str {
        &self.names[element]
    }

    /// Whether every element is a product of these.
    pub fn is_generated_by(&self, elements: &[usize]) -> bool {
        let mut reached = vec![false; self.order()];
        reached[0] = true;
        let mut new = vec![0];
        while let Some(from) = new.pop() {
            for &element in elements {
                let to = self.product(from, element);
                if !std::mem::replace(&mut reached[to], true) {
                    new.push(to);
                }
            }
        }
        reached.into_iter().all(|reached| reached)
    }

    /// The same group with these elements right after the identity, in their order.
    pub fn led_by(&self, elements: &[usize]) -> Self {
        let rest = (1..self.order()).filter(|element| !elements.contains(element));
        let old: Vec<usize> = [0]
            .into_iter()
            .chain(elements.iter().copied())
            .chain(rest)
            .collect();
        let mut new = vec![0; old.len()];
        for (place, &element) in old.iter().enumerate() {
            new[element] = place as u16;
        }
        let products = old
            .iter()
            .flat_map(|&a| old.iter().map(move |&b| (a, b)))
            .map(|(a, b)| new[self.product(a, b)]);
        Self {
            names: old
                .iter()
                .map(|&element| self.names[element].clone())
                .collect(),
            products: products.collect(),
        }
    }
}

fn is_even(permutation: &[u8]) -> bool {
    let pairs = (0..permutation.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    pairs
        .filter(|&(i, j)| permutation[i] > permutation[j])
        .count()
        .is_multiple_of(2)
}

/// A permutation as its cycles over 1, 2, .., and `e` where nothing moves.
fn cycles(permutation: &[u8]) -> String {
    let mut text = String::new();
    let mut seen = vec![false; permutation.len()];
    for start in 0..permutation.len() {
        let mut at = start;
        let mut cycle = String::new();
        while !std::mem::replace(&mut seen[at], true) {
            cycle.push_str(&(at + 1).to_string());
            at = usize::from(permutation[at]);
        }
        if cycle.len() > 1 {
            text.push_str(&format!("({cycle})"));
        }
    }
    if text.is_empty() {
        "e".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_a_group() {
        let a4 = Group::permutations(4, true);
        let both = Group::pairs(&a4, &Group::cyclic(5));
        for (group, order) in [
            (Group::permutations(3, false), 6),
            (Group::permutations(4, false), 24),
            (Group::permutations(5, true), 60),
            (Group::permutations(5, false), 120),
            (Group::cyclic(60), 60),
            (both, 60),
        ] {
            assert_eq!(group.order(), order);
            for a in 0..order {
                assert_eq!((group.product(0, a), group.product(a, 0)), (a, a));
                let inverses = (0..order).filter(|&b| group.product(a, b) == 0).count();
                assert_eq!(inverses, 1);
                for b in 0..order {
                    let c = (a * 7 + b * 3) % order;
                    let left = group.product(group.product(a, b), c);
                    assert_eq!(left, group.product(a, group.product(b, c)));
                }
            }
        }
    }

    #[test]
    fn elements_are_named_by_their_cycles() {
        let group = Group::permutations(5, false);
        let of = |name: &str| (0..120).find(|&element| group.name(element) == name);
        let (swap, cycle) = (of("(12)").unwrap(), of("(12345)").unwrap());
        // 1 goes to 2 by the swap, then to 3 by the cycle; 2 to 1, then to 2.
        assert_eq!(group.name(group.product(swap, cycle)), "(1345)");
        assert_eq!(group.name(0), "e");
        assert!(group.is_generated_by(&[swap, cycle]));
        assert!(!group.is_generated_by(&[cycle]));
        assert!(!group.is_generated_by(&[]));
        let led = group.led_by(&[cycle, swap]);
        assert_eq!((led.name(1), led.name(2)), ("(12345)", "(12)"));
        assert_eq!(led.name(led.product(2, 1)), "(1345)");
    }
}
