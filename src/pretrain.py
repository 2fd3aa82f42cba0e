"""Pre-train a head on single levels of phantoms, drawn for it and half of them fractured, before it sees a data set:

    python src/pretrain.py --config configs/fracture/sequence.yaml --levels 4000 model.cells=true crop.boxes=1 \\
        crop.hide_mask=0.3 crop.wear_mask=0.6
    python src/train.py --config configs/fracture/sequence.yaml --fold all model.cells=true crop.boxes=1 \\
        model.start=oof/fracture-sequence/pretrained/weights.safetensors

Masks of levels drawn alone are exact, and worn or hidden they are as stage 1's, or as heads on whole slices have none.
For little data; what phantoms teach holds for phantoms, and on patients it is to be measured like any other choice.
"""

import os

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/fracture/sequence.yaml")
    parser.add_argument("--levels", type=int, default=4000, help="how many to draw (4000); 15 %% of them are held out")
    parser.add_argument("--seed", type=int, default=11, help="another seed draws other patients (11)")
    parser.add_argument("--matrix", type=int, default=512, help="of the scans' fields of view (512)")
    parser.add_argument("--spacing", type=float, default=0.8, help="distance between slices in mm (0.8)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that draw levels (all cores)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    args = parser.parse_with_overrides()
    if args.matrix < 32 or not 0.2 <= args.spacing <= 5 or args.processes < 1:
        raise UsageError("--matrix must be at least 32, --spacing 0.2 to 5 mm, --processes at least 1")

    # Imported late so that -h answers at once.
    from cspine.config import Config, load
    from cspine.engine.distributed import join_world
    from cspine.phantom.single_levels import Sampling
    from cspine.pretraining import Order, pretrain

    config = load(Config, args.config, args.overrides)
    with join_world(config.train.device, config.data.workers) as world:
        order = Order(args.levels, args.seed, Sampling(args.matrix, args.spacing))
        pretrain(config, order, world, args.processes, args.resume)


if __name__ == "__main__":
    run(main)
