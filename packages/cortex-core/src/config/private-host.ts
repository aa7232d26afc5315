/** Whether a host of a URL is this machine or an address of a private network. Names are not looked up. */
import { isIP } from 'node:net';

export function isPrivateHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  if (isIP(host) === 4) return isPrivateV4(host);
  if (isIP(host) === 6) return isPrivateV6(host);
  return host === 'localhost' || host.endsWith('.localhost');
}

function isPrivateV4(host: string): boolean {
  const [a = 0, b = 0] = host.split('.').map(Number);
  if (a === 10 || a === 127) return true;
  return (a === 172 && b >= 16 && b <= 31) || (a === 192 && b === 168) || (a === 169 && b === 254);
}

/** Loopback, unique local (fc00::/7), link local (fe80::/10). */
function isPrivateV6(host: string): boolean {
  return host === '::1' || /^f[cd][0-9a-f]{2}:/.test(host) || /^fe[89ab][0-9a-f]:/.test(host);
}
