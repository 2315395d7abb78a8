package linuxpkg

// upstreamRelease is the release of GitLab Runner's own packages. gitlab-runner
// requires gitlab-runner-helper-images in exactly this release from 17.7.1 on
// (GitLab Runner v17.7.1 to v19.3.0, magefiles/packages/create.go).
const upstreamRelease = "1"

// belowUpstream reports whether the iteration sorts below upstreamRelease. Only a
// tilde sorts below the end of a version.
func belowUpstream(iteration string) bool {
	return len(iteration) > 1 && iteration[:2] == upstreamRelease+"~"
}
