;; A x for vectors x, four at a time. A has m rows of n float32, n a multiple of 4; x holds, of every four vectors, the
;; first four numbers of each, then the next four; out, of every four, the products with the first row, then the next.
;; A, x and out are places in the memory, in bytes; fours is how many times four vectors there are.
(module
  (import "js" "memory" (memory 1))

  (func (export "product")
    (param $A i32) (param $x i32) (param $out i32) (param $m i32) (param $n i32) (param $fours i32)
    (local $a i32) (local $i i32) (local $k i32) (local $end i32)
    (local $a4 v128) (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (loop $next
      (local.set $a (local.get $A))
      (local.set $i (local.get $m))
      (local.set $end (i32.add (local.get $x) (i32.mul (local.get $n) (i32.const 16))))
      (loop $rows
        ;; Of each vector four sums, over every fourth number.
        (local.set $s0 (v128.const f32x4 0 0 0 0))
        (local.set $s1 (local.get $s0))
        (local.set $s2 (local.get $s0))
        (local.set $s3 (local.get $s0))
        (local.set $k (local.get $x))
        (loop $columns
          (local.set $a4 (v128.load (local.get $a)))
          (local.set $s0 (f32x4.add (local.get $s0) (f32x4.mul (local.get $a4) (v128.load (local.get $k)))))
          (local.set $s1 (f32x4.add (local.get $s1) (f32x4.mul (local.get $a4) (v128.load offset=16 (local.get $k)))))
          (local.set $s2 (f32x4.add (local.get $s2) (f32x4.mul (local.get $a4) (v128.load offset=32 (local.get $k)))))
          (local.set $s3 (f32x4.add (local.get $s3) (f32x4.mul (local.get $a4) (v128.load offset=48 (local.get $k)))))
          (local.set $a (i32.add (local.get $a) (i32.const 16)))
          (local.set $k (i32.add (local.get $k) (i32.const 64)))
          (br_if $columns (i32.lt_u (local.get $k) (local.get $end))))
        (f32.store (local.get $out) (call $total (local.get $s0)))
        (f32.store offset=4 (local.get $out) (call $total (local.get $s1)))
        (f32.store offset=8 (local.get $out) (call $total (local.get $s2)))
        (f32.store offset=12 (local.get $out) (call $total (local.get $s3)))
        (local.set $out (i32.add (local.get $out) (i32.const 16)))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br_if $rows (local.get $i)))
      (local.set $x (local.get $end))
      (local.set $fours (i32.sub (local.get $fours) (i32.const 1)))
      (br_if $next (local.get $fours))))

  (func $total (param $s v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $s)) (f32x4.extract_lane 1 (local.get $s)))
      (f32.add (f32x4.extract_lane 2 (local.get $s)) (f32x4.extract_lane 3 (local.get $s))))))
