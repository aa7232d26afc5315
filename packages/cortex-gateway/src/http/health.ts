import type { Exchange } from 'cortex-core/daemon/http-server';
import type { Fleet } from '../fleet/fleet.ts';

/** GET /health and GET /: always 200; `status` says how much of the fleet serves. */
export function healthHandler(fleet: Fleet): (exchange: Exchange) => void {
  return (exchange) => {
    const { nodes } = fleet.view();
    const healthy = nodes.filter((node) => node.healthy).length;
    const unservable = nodes.flatMap((node) =>
      [...node.models.values()]
        .filter(
          (model) =>
            model.unservable !== null || model.status === 'poisoned' || model.status === 'recovering',
        )
        .map((model) => ({
          node: node.name,
          model: model.id,
          reason: model.unservable === null ? model.status : 'unservable',
          detail: model.unservable,
        })),
    );
    const whole = healthy === nodes.length && unservable.length === 0;
    exchange.sendJson(200, {
      status: healthy === 0 ? 'degraded' : whole ? 'ok' : 'impaired',
      nodes: { healthy, total: nodes.length },
      ...(unservable.length === 0 ? {} : { unservable }),
    });
  };
}
