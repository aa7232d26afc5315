import type { Exchange } from 'cortex-core/daemon/http-server';
import type { Fleet } from '../fleet/fleet.ts';

/**
 * GET /health and GET /: always 200; `status` says how much of the fleet serves. A node is `healthy` when it
 * answers polls; `out_of_service` and `unservable` say what it nevertheless does not serve, and why.
 */
export function healthHandler(fleet: Fleet): (exchange: Exchange) => void {
  return (exchange) => {
    const nodes = fleet.nodes();
    const healthy = nodes.filter((node) => node.healthy);
    const idle = fleet.providers.all.flatMap((provider) => {
      const refusal = provider.refusal(null);
      return refusal === null ? [] : [{ node: provider.spec.name, reason: refusal.reason }];
    });
    const resting = healthy.flatMap(({ name, service: { refusal, mode } }) => {
      const reason = refusal ?? (mode === 'cordoned' ? 'is cordoned by an operator' : null);
      return reason === null ? [] : [{ node: name, reason }];
    });
    const outOfService = [...resting, ...idle];
    const unservable = nodes.flatMap((node) =>
      [...node.toView().models.values()]
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
    const providers = fleet.providers.all;
    const serving =
      healthy.filter((node) => node.service.refusal === null).length + (providers.length - idle.length);
    const whole = healthy.length === nodes.length && outOfService.length + unservable.length === 0;
    exchange.sendJson(200, {
      status: serving === 0 ? 'degraded' : whole ? 'ok' : 'impaired',
      nodes: { healthy: healthy.length, total: nodes.length },
      ...(providers.length === 0
        ? {}
        : { providers: { serving: providers.length - idle.length, total: providers.length } }),
      ...(outOfService.length === 0 ? {} : { out_of_service: outOfService }),
      ...(unservable.length === 0 ? {} : { unservable }),
    });
  };
}
