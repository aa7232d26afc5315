/** A defragmentation as the admin API shows it. */
import type { DefragNode } from 'cortex-core/wire/defrag';
import type { DefragPlan } from '../decide/defrag.ts';
import type { DefragReport } from './defragmenter.ts';

export function describePlan(plan: DefragPlan): DefragNode {
  return {
    node: plan.node,
    makes_room_for: plan.makesRoomFor,
    moves: plan.moves.map(({ model, from, to, vramMb }) => ({ model, from, to, vram_mb: vramMb })),
    moved_mb: plan.movedMb,
    recycle: plan.recycle.map(({ device, models, why }) => ({ device, models: [...models], why })),
    why: plan.why,
  };
}

export function describeReport({ plan, moved, recycled, reloading, error }: DefragReport): DefragNode {
  return { ...describePlan(plan), done: { moves: moved, recycled, reloading: [...reloading], error } };
}
