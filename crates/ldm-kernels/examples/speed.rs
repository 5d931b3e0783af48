use ldm_kernels::*;
use std::time::Instant;
fn main(){
  for level in [Level::Avx2, Level::Avx512] {
  for (b,c,k,s) in [(2,320,320,64),(2,640,640,32),(2,1280,1280,16),(2,1280,1280,8),(2,2560,1280,16),(1,512,512,128),(1,256,256,256),(1,128,128,512)] {
    let w: Vec<f32> = (0..k*c*9).map(|i| ((i*7919)%1000) as f32/1000.-0.5).collect();
    let w = Conv3x3Weights::new(&OneThread, level, [k,c], &w);
    let size=ImageSize{batch:b,height:s,width:s};
    let x: Vec<f32> = (0..b*s*s*c).map(|i| ((i*7919)%1000) as f32/1000.-0.5).collect();
    let mut y=vec![0f32;b*s*s*k];
    let mut best=1e9f64;
    for _ in 0..4 { let t=Instant::now(); conv3x3(&OneThread,&w,size,&x,None,Default::default(),&mut y); best=best.min(t.elapsed().as_secs_f64()); }
    println!("{level} {b}x{c}->{k} {s}: {:.2} ms {:.0} GFLOP/s direct", best*1e3, 2.*9.*(b*s*s*c*k) as f64/best/1e9);
  }}
}
