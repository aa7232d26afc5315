/** `strftime_now(format)`, in UTC: a prompt must not depend on where a machine stands. */
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** Python's directives; one that it does not know stays as it is. `%-d` drops the leading zero. */
export function strftime(format: string, at: Date): string {
  return format.replace(/%([-#]?)([a-zA-Z%])/g, (whole, flag: string, directive: string) => {
    const text = directiveText(directive, at);
    if (text === null) return whole;
    return flag === '' ? text : text.replace(/^0+(?=\d)/, '');
  });
}

function directiveText(directive: string, at: Date): string | null {
  const day = days[at.getUTCDay()] ?? '';
  const month = months[at.getUTCMonth()] ?? '';
  const hour = at.getUTCHours();
  switch (directive) {
    case 'Y':
      return String(at.getUTCFullYear());
    case 'y':
      return two(at.getUTCFullYear() % 100);
    case 'm':
      return two(at.getUTCMonth() + 1);
    case 'd':
      return two(at.getUTCDate());
    case 'e':
      return String(at.getUTCDate()).padStart(2);
    case 'B':
      return month;
    case 'b':
    case 'h':
      return month.slice(0, 3);
    case 'A':
      return day;
    case 'a':
      return day.slice(0, 3);
    case 'w':
      return String(at.getUTCDay());
    case 'u':
      return String(at.getUTCDay() || 7);
    case 'H':
      return two(hour);
    case 'I':
      return two(hour % 12 || 12);
    case 'p':
      return hour < 12 ? 'AM' : 'PM';
    case 'M':
      return two(at.getUTCMinutes());
    case 'S':
      return two(at.getUTCSeconds());
    case 'f':
      return String(at.getUTCMilliseconds() * 1000).padStart(6, '0');
    case 'j':
      return String(dayOfYear(at)).padStart(3, '0');
    case 'Z':
      return 'UTC';
    case 'z':
      return '+0000';
    case 'F':
      return at.toISOString().slice(0, 10);
    case 'T':
      return at.toISOString().slice(11, 19);
    case '%':
      return '%';
    default:
      return null;
  }
}

function dayOfYear(at: Date): number {
  return Math.floor((at.getTime() - Date.UTC(at.getUTCFullYear(), 0, 1)) / 86_400_000) + 1;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
