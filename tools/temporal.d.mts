export function findTemporalCli(): Promise<string | null>
export function fetchTemporalCli(): Promise<string>
export function temporalCli(): Promise<string>
